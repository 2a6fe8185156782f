/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Values set before load (.rodata): the verifier prunes what they switch off.
 * What may change while programs run is in lib/runtime.h instead.
 */
#pragma once
#include <linux/types.h>

#define CONFIG(TYPE, NAME, VALUE, SENTENCE) \
	const volatile TYPE NAME = VALUE

CONFIG(__u32, ct_timeout_tcp_s, 21600, "an established TCP connection without packets");
CONFIG(__u32, ct_timeout_tcp_syn_s, 60, "a TCP connection whose handshake is not complete");
CONFIG(__u32, ct_timeout_tcp_close_s, 10, "a TCP connection after FIN from both sides, or RST");
CONFIG(__u32, ct_timeout_any_s, 60, "UDP, ICMP and other protocols without packets");
CONFIG(__u64, node_netns, 0, "cookie of the node's own network namespace");
