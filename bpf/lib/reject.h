/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* reject: answers a packet as a host does where nobody listens, by the device it came by; a pod's in its own
 * namespace: a TCP segment with a reset, others with "port unreachable".  And as a router does what cannot go on.
 */
#pragma once
#include "csum.h"
#include "overlay.h"
#include "packet.h"
#include "reset.h"

struct icmp_error {
	__u8   type;
	__u8   code;
	__sum16 checksum;
	__be32 rest;		/* the largest size that passes, if that is what is wrong */
};

#define REJECT_INNER4 (sizeof(struct iphdr) + 8)
#define REJECT_INNER6 (sizeof(struct ipv6hdr) + 8)
#define ICMP_PORT_UNREACH	3	/* codes */
#define ICMPV6_PORT_UNREACH	4

struct reject4 {
	struct iphdr ip;
	struct icmp_error icmp;
	__be32 inner[REJECT_INNER4 / 4];
};

/* Of a first fragment 8 bytes more: its header comes before L4's. */
struct reject6 {
	struct icmp_error icmp;
	__be32 inner[(REJECT_INNER6 + 8) / 4];
};

static __always_inline void reject_swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
}

/* The frame's head, the same length as *message* behind *offset*, turned round; 0, or a drop reason. */
static __always_inline int reject_turn(struct __sk_buff *skb, __u32 length)
{
	struct ethhdr *eth;

	if (bpf_skb_change_tail(skb, length, 0) || bpf_skb_pull_data(skb, length))
		return DROP_INVALID;
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	reject_swap_macs(eth);
	return 0;
}

GLOBAL int reject4(struct __sk_buff *skb, __u32 type, __u32 code, __be32 rest)
{
	struct reject4 answer = {};

	if (bpf_skb_load_bytes(skb, L3_OFFSET, answer.inner, sizeof(answer.inner)) ||
	    reject_turn(skb, L3_OFFSET + sizeof(answer)))
		return DROP_INVALID;
	answer.ip.version = 4;
	answer.ip.ihl = 5;
	answer.ip.tot_len = bpf_htons(sizeof(answer));
	answer.ip.ttl = 64;
	answer.ip.protocol = IPPROTO_ICMP;
	answer.ip.saddr = answer.inner[4];
	answer.ip.daddr = answer.inner[3];
	answer.ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer.ip, sizeof(answer.ip), 0));
	answer.icmp.type = type;
	answer.icmp.code = code;
	answer.icmp.rest = rest;
	answer.icmp.checksum = csum_fold(
		bpf_csum_diff(NULL, 0, (__be32 *)&answer.icmp, sizeof(answer) - sizeof(answer.ip), 0));
	return bpf_skb_store_bytes(skb, L3_OFFSET, &answer, sizeof(answer), 0) ? DROP_INVALID : 0;
}

GLOBAL int reject6(struct __sk_buff *skb, const struct packet *packet, __u32 type, __u32 code, __be32 rest)
{
	__u32 size = sizeof(struct reject6) - 8;
	struct reject6 answer = {};
	struct ipv6hdr *ip;

	if (!packet || bpf_skb_load_bytes(skb, L3_OFFSET, answer.inner, REJECT_INNER6))
		return DROP_INVALID;
	if (packet->flags & PACKET_FIRST_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, L3_OFFSET + REJECT_INNER6, answer.inner + REJECT_INNER6 / 4, 8))
			return DROP_INVALID;
		size = sizeof(answer);
	}
	if (reject_turn(skb, L3_OFFSET + sizeof(*ip) + size))
		return DROP_INVALID;
	ip = (void *)(long)skb->data + L3_OFFSET;
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	ip->payload_len = bpf_htons(size);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, &packet->destination, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &packet->source, sizeof(ip->daddr));
	answer.icmp.type = type;
	answer.icmp.code = code;
	answer.icmp.rest = rest;
	answer.icmp.checksum = csum_icmp6(&packet->destination, &packet->source, (__be32 *)&answer,
					  sizeof(answer) / 4, size);
	return bpf_skb_store_bytes(skb, L3_OFFSET + sizeof(*ip), &answer, size, 0) ? DROP_INVALID : 0;
}

GLOBAL int reject_tcp(struct __sk_buff *skb, const struct packet *packet)
{
	struct reset_packet answer = {};
	__u32 error;

	if (!packet)
		return DROP_INVALID;
	if (bpf_skb_load_bytes(skb, packet->l4_offset, &answer.tcp, sizeof(answer.tcp)))
		return DROP_INVALID;
	if (answer.tcp.flags & TCP_RST)
		return DROP_NO_BACKEND;	/* that is never answered */
	reset_fill(skb, packet, &answer);
	if (packet->family == 4) {
		if (reject_turn(skb, L3_OFFSET + sizeof(answer.ip) + sizeof(answer.tcp)))
			return DROP_INVALID;
		error = bpf_skb_store_bytes(skb, L3_OFFSET, &answer.ip, sizeof(answer.ip) + sizeof(answer.tcp), 0);
	} else {
		if (reject_turn(skb, L3_OFFSET + sizeof(answer)))
			return DROP_INVALID;
		error = bpf_skb_store_bytes(skb, L3_OFFSET, &answer, sizeof(answer), 0);
	}
	return error ? DROP_INVALID : 0;
}

/* Back to where *packet* came from. */
static __always_inline int reject_send(struct __sk_buff *skb, const struct packet *packet)
{
	if (!(packet->flags & PACKET_FROM_NETWORK))
		return bpf_redirect_peer(skb->ifindex, 0);
	if (packet->flags & PACKET_FROM_OVERLAY && overlay_turn(skb))
		return DROP_NO_TUNNEL_ENDPOINT;
	return bpf_redirect(skb->ifindex, 0);
}

/* Answers the first packet of a connection to an address that nobody serves; an action, or a drop reason. */
static __always_inline int reject(struct __sk_buff *skb, const struct packet *packet)
{
	int error;

	if (packet->flags & PACKET_LATER_FRAGMENT)
		return DROP_NO_BACKEND;	/* its first was answered */
	if (packet->protocol == IPPROTO_TCP)
		error = reject_tcp(skb, packet);
	else
		error = packet->family == 4 ? reject4(skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
					    : reject6(skb, packet, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH, 0);
	if (error)
		return error;
	return reject_send(skb, packet);
}

/* Answers a packet from the wire that has no hop left (*mtu* is 0), or is longer than *mtu*, which fits. */
static __always_inline int reject_from_wire(struct __sk_buff *skb, const struct packet *packet, __u32 mtu)
{
	int error;

	if (packet->flags & PACKET_LATER_FRAGMENT)
		return DROP_INVALID;	/* about these nobody is told */
	if (packet->family == 4)
		error = mtu ? reject4(skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, bpf_htonl(mtu))
			    : reject4(skb, ICMP_TIME_EXCEEDED, 0, 0);
	else
		error = mtu ? reject6(skb, packet, ICMPV6_PKT_TOOBIG, 0, bpf_htonl(mtu))
			    : reject6(skb, packet, ICMPV6_TIME_EXCEED, 0, 0);
	return error ? error : reject_send(skb, packet);
}
