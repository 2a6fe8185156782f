/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* rewrite: gives one end of a packet another address and port, checksums included. */
#pragma once
#include "address.h"
#include "csum.h"
#include "packet.h"

/* An end of a connection. */
struct end {
	union address address;
	__be16 port;
	__u16  pad[3];
};

#define REWRITE_SOURCE		0
#define REWRITE_DESTINATION	1

/* Where the checksum of *protocol* is in its header, which covers the addresses; 0: it has none. */
static __always_inline __u32 rewrite_checksum(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;
}

static __always_inline bool rewrite_is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

#define ICMP_CHECKSUM	2	/* offsets */
#define ICMP_IDENTIFIER	4

/* Has an ICMP request or what answers it name another identifier. */
GLOBAL int rewrite_identifier(struct __sk_buff *skb, struct packet *packet, __u32 identifier)
{
	__be16 fresh = identifier;

	if (!packet)
		return DROP_INVALID;
	if (packet->source_port == fresh)
		return 0;
	if (bpf_l4_csum_replace(skb, packet->l4_offset + ICMP_CHECKSUM, packet->source_port, fresh, 2) ||
	    bpf_skb_store_bytes(skb, packet->l4_offset + ICMP_IDENTIFIER, &fresh, 2, 0))
		return DROP_INVALID;
	packet->source_port = fresh;
	return 0;
}

static __always_inline __u32 rewrite_address_offset(__u8 family, __u32 which)
{
	return family == 4 ? __builtin_offsetof(struct iphdr, saddr) + which * 4
			   : __builtin_offsetof(struct ipv6hdr, saddr) + which * 16;
}

/* Has *packet* come from or go to *to*, as *which* says; 0, or a drop reason.  Later fragments have no port;
 * ICMP's is the identifier, errors have none; SCTP's stays.
 */
GLOBAL int rewrite_end(struct __sk_buff *skb, struct packet *packet, const struct end *to, __u32 which)
{
	union address *old;
	__be16 *port;
	__u32 at, checksum, flags;

	if (!packet || !to)
		return DROP_INVALID;
	which &= 1;
	old = which == REWRITE_SOURCE ? &packet->source : &packet->destination;
	port = which == REWRITE_SOURCE ? &packet->source_port : &packet->destination_port;
	checksum = packet->flags & PACKET_LATER_FRAGMENT ? 0 : rewrite_checksum(packet->protocol);
	/* A datagram without a checksum gets none. */
	flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	at = packet->l4_offset + checksum;
	if (checksum) {
		__s64 sum = bpf_csum_diff(old->words, sizeof(*old), (__be32 *)to->address.words, sizeof(*old), 0);

		if (bpf_l4_csum_replace(skb, at, 0, sum, flags | BPF_F_PSEUDO_HDR))
			return DROP_INVALID;
	}
	if (checksum && packet->protocol != IPPROTO_ICMPV6 && *port != to->port) {
		if (bpf_l4_csum_replace(skb, at, *port, to->port, flags | 2) ||
		    bpf_skb_store_bytes(skb, packet->l4_offset + which * 2, &to->port, 2, 0))
			return DROP_INVALID;
		*port = to->port;
	}
	if (rewrite_is_icmp(packet->protocol) && !(packet->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT)) &&
	    rewrite_identifier(skb, packet, to->port))
		return DROP_INVALID;
	at = L3_OFFSET + rewrite_address_offset(packet->family, which);
	if (packet->family == 4) {
		if (bpf_l3_csum_replace(skb, L3_OFFSET + __builtin_offsetof(struct iphdr, check), old->words[3],
					to->address.words[3], 4) ||
		    bpf_skb_store_bytes(skb, at, &to->address.words[3], 4, 0))
			return DROP_INVALID;
	} else if (bpf_skb_store_bytes(skb, at, &to->address, 16, 0)) {
		return DROP_INVALID;
	}
	*old = to->address;
	return 0;
}

/* The same of the packet *inner* that the ICMP error *outer* is about: of its header as far as it is there.
 * An IPv4 header sums up to the same with its own checksum put right, so only ports change *outer*'s.
 */
GLOBAL int rewrite_inner(struct __sk_buff *skb, const struct packet *outer, const struct packet *inner,
			 const struct end *to, __u32 which)
{
	const union address *old;
	__u32 checksum, header, at;
	__be16 port;

	if (!outer || !inner || !to)
		return DROP_INVALID;
	which &= 1;
	old = which == REWRITE_SOURCE ? &inner->source : &inner->destination;
	port = which == REWRITE_SOURCE ? inner->source_port : inner->destination_port;
	at = inner->l4_offset + which * 2;
	if (rewrite_is_icmp(inner->protocol)) {
		port = inner->source_port;
		at = inner->l4_offset + ICMP_IDENTIFIER;
	}
	checksum = outer->l4_offset + 2;
	header = outer->l4_offset + 8;
	if (outer->family == 4) {
		if (bpf_l3_csum_replace(skb, header + __builtin_offsetof(struct iphdr, check), old->words[3],
					to->address.words[3], 4) ||
		    bpf_skb_store_bytes(skb, header + rewrite_address_offset(4, which), &to->address.words[3], 4, 0))
			return DROP_INVALID;
	} else {
		__s64 sum = bpf_csum_diff((__be32 *)old->words, 16, (__be32 *)to->address.words, 16, 0);

		if (bpf_l4_csum_replace(skb, checksum, 0, sum, 0) ||
		    bpf_skb_store_bytes(skb, header + rewrite_address_offset(6, which), &to->address, 16, 0))
			return DROP_INVALID;
	}
	if (bpf_l4_csum_replace(skb, checksum, port, to->port, 2) ||
	    bpf_skb_store_bytes(skb, at, &to->port, 2, 0))
		return DROP_INVALID;
	return 0;
}
