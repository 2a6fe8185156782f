/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* l2: addresses of Services that this node answers for on its segment, by ARP and neighbour discovery.
 * Written by cirri.l2 (answers, rivals and L2_YIELDED by bpf_node.c).  Read by bpf_node.c.
 * Mirror: libs/cirri/layout/l2.py
 *
 * An entry goes on answering without the process that wrote it.  It stops when another node of the cluster announces
 * the address: that one holds it now, and this node did not hear of it, or its process is dead.
 */
#pragma once
#include "map.h"
#include "neighbour.h"
#include "packet.h"

enum l2_flag {
	L2_YIELDED = 1,	/* a node of cirri_l2_peers announced the address: silence */
};

struct l2_key {
	union address address;
	__u32 ifindex;		/* the device on which it is asked for */
	__u32 pad;
};

struct l2_value {
	__u64 answers;		/* solicitations and requests that were answered */
	__u64 rivals;		/* announcements of the address by others */
	__u8  mac[6];		/* what is answered: the device's own */
	__u8  rival[6];		/* who announced it last; zero: nobody */
	__u32 flags;		/* enum l2_flag */
};

MAP_FLAGS(cirri_l2_responder, HASH, struct l2_key, struct l2_value, 65536, BPF_F_NO_PREALLOC);

struct l2_peer {
	__u8  mac[6];
	__u16 pad;
};

/* MAC addresses by which the cluster's other nodes announce: nobody else's word makes an entry yield. */
MAP_FLAGS(cirri_l2_peers, HASH, struct l2_peer, __u32, 4096, BPF_F_NO_PREALLOC);

static __always_inline struct l2_value *l2_lookup(const union address *address, __u32 ifindex)
{
	struct l2_key key = { .address = *address, .ifindex = ifindex };

	return bpf_map_lookup_elem(&cirri_l2_responder, &key);
}

/* *mac* says that the address of *entry* is there. */
static __always_inline void l2_rival(struct l2_value *entry, const __u8 *mac)
{
	struct l2_peer peer = {};

	if (mac_equal(mac, entry->mac))
		return;
	__builtin_memcpy(peer.mac, mac, ETH_ALEN);
	__builtin_memcpy(entry->rival, mac, ETH_ALEN);
	__sync_fetch_and_add(&entry->rivals, 1);
	if (bpf_map_lookup_elem(&cirri_l2_peers, &peer))
		entry->flags |= L2_YIELDED;
}

/* ARP from the segment: what asks for an address of ours is answered, the rest is the stack's. */
GLOBAL int l2_arp(struct __sk_buff *skb)
{
	const __u32 length = L3_OFFSET + sizeof(struct arp_ethernet4);
	struct arp_ethernet4 *arp;
	union address address;
	struct l2_value *entry;
	struct ethhdr *eth;
	__be32 sender, target;
	__u8 mac[ETH_ALEN];

	bpf_skb_pull_data(skb, length);
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return TC_ACT_OK;
	if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_size != ETH_ALEN || arp->protocol_size != 4)
		return TC_ACT_OK;
	__builtin_memcpy(&sender, arp->sender_ip, 4);
	__builtin_memcpy(&target, arp->target_ip, 4);
	address_set4(&address, sender);
	entry = sender ? l2_lookup(&address, skb->ifindex) : NULL;
	if (entry)
		l2_rival(entry, arp->sender_mac);
	if (arp->operation != bpf_htons(ARP_REQUEST) || sender == target)
		return TC_ACT_OK;
	address_set4(&address, target);
	entry = l2_lookup(&address, skb->ifindex);
	if (!entry || entry->flags & L2_YIELDED)
		return TC_ACT_OK;

	__builtin_memcpy(mac, entry->mac, ETH_ALEN);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->target_ip, &sender, 4);
	__builtin_memcpy(arp->sender_mac, mac, ETH_ALEN);
	__builtin_memcpy(arp->sender_ip, &target, 4);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	__sync_fetch_and_add(&entry->answers, 1);
	return bpf_redirect(skb->ifindex, 0);
}

/* Neighbour discovery from the segment, as l2_arp(). */
GLOBAL int l2_nd(struct __sk_buff *skb, const struct packet *packet)
{
	const union address everybody = { .words = { bpf_htonl(0xff020000), 0, 0, bpf_htonl(1) } };
	__u8 to[ETH_ALEN] = { 0x33, 0x33, 0, 0, 0, 1 }, mac[ETH_ALEN], hop_limit = 0;
	struct nd_message nd = {};
	union address source;
	struct l2_value *entry;
	bool unknown;
	int action;

	if (!packet)
		return TC_ACT_OK;
	if (packet->l4_offset != L3_OFFSET + sizeof(struct ipv6hdr) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET + __builtin_offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET + sizeof(struct ipv6hdr), &nd, 24))
		return TC_ACT_OK;
	if (hop_limit != ND_HOP_LIMIT || nd.code)
		return TC_ACT_OK;
	entry = l2_lookup(&nd.target, skb->ifindex);
	if (!entry)
		return TC_ACT_OK;
	if (nd.type == ND_NEIGHBOUR_ADVERTISEMENT) {
		if (!bpf_skb_load_bytes(skb, L3_OFFSET + sizeof(struct ipv6hdr) + 24, &nd.option, 8) &&
		    nd.option == ND_OPTION_TARGET)
			l2_rival(entry, nd.mac);
		return TC_ACT_OK;
	}
	if (nd.type != ND_NEIGHBOUR_SOLICITATION || entry->flags & L2_YIELDED)
		return TC_ACT_OK;
	/* Without a source somebody wants the address for itself (RFC 4862, 5.4.3): everybody is told whose it is. */
	source = packet->source;
	unknown = address_is_zero(&source);
	if (!unknown && bpf_skb_load_bytes(skb, ETH_ALEN, to, ETH_ALEN))
		return TC_ACT_OK;
	__builtin_memcpy(mac, entry->mac, ETH_ALEN);
	if (unknown)
		source = everybody;
	action = nd_answer(skb, &source, mac, to, unknown ? ND_OVERRIDE : ND_SOLICITED_OVERRIDE);
	if (action != TC_ACT_REDIRECT)
		return TC_ACT_SHOT;	/* no longer what was asked */
	__sync_fetch_and_add(&entry->answers, 1);
	return action;
}

/* What is for none of this node's pods and no frontend: the action that answers it, or TC_ACT_OK. */
static __always_inline int l2_answer(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->flags & PACKET_NEIGHBOUR)
		return l2_nd(skb, packet);
	return skb->protocol == bpf_htons(ETH_P_ARP) ? l2_arp(skb) : TC_ACT_OK;
}
