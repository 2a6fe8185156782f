/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* fragments: the ports that a datagram's first fragment carried.
 * Written and read by bpf_pod.c, bpf_node.c.
 * Mirror: libs/cirri/layout/fragment.py
 */
#pragma once
#include "address.h"
#include "map.h"

struct fragment_key {
	union address source;
	union address destination;
	__be32 id;
	__u8   protocol;
	__u8   pad[3];
};

struct fragment_value {
	__be16 source_port;
	__be16 destination_port;
};

MAP(cirri_fragments, LRU_HASH, struct fragment_key, struct fragment_value, 8192);
