/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* csum: Internet checksums of what the programs write themselves (RFC 1071). */
#pragma once
#include <linux/ipv6.h>
#include "address.h"

static __always_inline __sum16 csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Of an ICMPv6 message of *length* bytes in *words* 32-bit words, zeros behind it, with the pseudo header of RFC 8200,
 * 8.1.
 */
static __always_inline __sum16 csum_icmp6(const union address *source, const union address *destination,
					  const __be32 *message, __u32 words, __u32 length)
{
	__u64 sum = (__u64)bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6);
	__u32 i;

	for (i = 0; i < 4; i++)
		sum += (__u64)source->words[i] + destination->words[i];
	for (i = 0; i < words; i++)
		sum += message[i];
	return csum_fold(sum);
}
