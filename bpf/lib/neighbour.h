/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* neighbour: ARP (RFC 826) and neighbour discovery (RFC 4861) as they lie on the wire. */
#pragma once
#include "csum.h"
#include "packet.h"

struct arp_ethernet4 {	/* RFC 826 for Ethernet and IPv4 */
	__be16 hardware;
	__be16 protocol;
	__u8   hardware_size;
	__u8   protocol_size;
	__be16 operation;
	__u8   sender_mac[6];
	__u8   sender_ip[4];
	__u8   target_mac[6];
	__u8   target_ip[4];
};

enum { ARP_REQUEST = 1, ARP_REPLY = 2 };

enum {
	ND_ROUTER_SOLICITATION = 133,
	ND_NEIGHBOUR_SOLICITATION = 135,
	ND_NEIGHBOUR_ADVERTISEMENT = 136,
	ND_OPTION_SOURCE = 1,
	ND_OPTION_TARGET = 2,
	ND_HOP_LIMIT = 255,	/* proves that no router forwarded it */
};

struct nd_message {	/* solicitation and advertisement, with one link-layer address */
	__u8   type;
	__u8   code;
	__sum16 checksum;
	__be32 flags;
	union address target;
	__u8   option;
	__u8   option_length;	/* in units of 8 bytes */
	__u8   mac[6];
};

#define ND_OVERRIDE bpf_htonl(0x20000000)
#define ND_SOLICITED_OVERRIDE bpf_htonl(0x60000000)

/* Makes the solicitation in *skb* its answer: who asks for the target finds it at *mac*.  Goes to *to* at *to_mac*. */
static __always_inline int nd_answer(struct __sk_buff *skb, const union address *to, const __u8 *mac,
				     const __u8 *to_mac, __be32 flags)
{
	struct ethhdr *eth;
	struct ipv6hdr *ip;
	struct nd_message *nd;
	const __u32 length = L3_OFFSET + sizeof(*ip) + sizeof(*nd);

	/* Without an option, or with several, the size differs. */
	if (skb->len != length && bpf_skb_change_tail(skb, length, 0))
		return DROP_INVALID;
	if (bpf_skb_pull_data(skb, length))
		return DROP_INVALID;
	eth = (void *)(long)skb->data;
	ip = (void *)(eth + 1);
	nd = (void *)(ip + 1);
	if ((void *)(nd + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	__builtin_memcpy(eth->h_dest, to_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	ip->payload_len = bpf_htons(sizeof(*nd));
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ND_HOP_LIMIT;
	__builtin_memcpy(&ip->daddr, to, sizeof(ip->daddr));
	__builtin_memcpy(&ip->saddr, &nd->target, sizeof(ip->saddr));
	nd->type = ND_NEIGHBOUR_ADVERTISEMENT;
	nd->code = 0;
	nd->checksum = 0;
	nd->flags = flags;
	nd->option = ND_OPTION_TARGET;
	nd->option_length = 1;
	__builtin_memcpy(nd->mac, mac, ETH_ALEN);
	{
		union address target;
		__be32 words[sizeof(*nd) / 4];

		__builtin_memcpy(&target, &nd->target, sizeof(target));
		__builtin_memcpy(words, nd, sizeof(words));
		nd->checksum = csum_icmp6(&target, to, words, sizeof(words) / 4, sizeof(words));
	}
	return bpf_redirect(skb->ifindex, 0);
}
