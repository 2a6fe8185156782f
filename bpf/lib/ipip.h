/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ipip: the other way to name a frontend (lib/dsr.h), for networks that lose IP options: the packet travels as its
 * client sent it, inside one from this node to the backend.  Ports stay, so they have to be the same.
 */
#pragma once
#include "csum.h"
#include "dsr.h"
#include "fragment.h"
#include "ipcache.h"

#define IPIP_TTL 64

/* By how much a packet grows that travels inside another one. */
static __always_inline __u32 ipip_bytes(__u8 family)
{
	return family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* Puts *packet*, whose destination is the backend's already, as it came to *frontend* into one from *own*. */
GLOBAL int ipip_put(struct __sk_buff *skb, struct packet *packet, const struct end *frontend,
		    const union address *own)
{
	union address backend;
	__u32 length;
	int error;

	if (!packet || !frontend || !own)
		return DROP_INVALID;
	backend = packet->destination;
	length = skb->len - L3_OFFSET;
	error = rewrite_end(skb, packet, frontend, REWRITE_DESTINATION);
	if (error)
		return error;
	packet->destination = backend;
	if (packet->family == 4) {
		struct iphdr outer = {
			.version = 4,
			.ihl = 5,
			.tot_len = bpf_htons(length + sizeof(outer)),
			.ttl = IPIP_TTL,
			.protocol = IPPROTO_IPIP,
			.saddr = own->words[3],
			.daddr = backend.words[3],
		};

		outer.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&outer, sizeof(outer), 0));
		if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC,
					DSR_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) ||
		    bpf_skb_store_bytes(skb, L3_OFFSET, &outer, sizeof(outer), 0))
			return DROP_INVALID;
	} else {
		struct ipv6hdr outer = {
			.version = 6,
			.payload_len = bpf_htons(length),
			.nexthdr = IPPROTO_IPV6,
			.hop_limit = IPIP_TTL,
		};

		__builtin_memcpy(&outer.saddr, own, sizeof(outer.saddr));
		__builtin_memcpy(&outer.daddr, &backend, sizeof(outer.daddr));
		if (bpf_skb_adjust_room(skb, sizeof(outer), BPF_ADJ_ROOM_MAC,
					DSR_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) ||
		    bpf_skb_store_bytes(skb, L3_OFFSET, &outer, sizeof(outer), BPF_F_RECOMPUTE_CSUM))
			return DROP_INVALID;
	}
	return 0;
}

/* Other nodes, and nobody else, send packets inside packets: who sends them could name any client. */
static __always_inline bool ipip_is_node(__u32 identity)
{
	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_KUBE_APISERVER ||
	       identity >> 24 == IDENTITY_SCOPE_NODE;
}

/* Takes out what travels inside a packet for a pod of this node, and sends it there; 0, or a drop reason. */
GLOBAL int ipip_receive(struct __sk_buff *skb, struct passage *passage)
{
	struct lb_frontend *named = dsr_named();
	struct packet *packet;
	struct end to = {};
	__be16 ethertype;
	__u8 family;
	int error;

	if (!passage || !named)
		return DROP_INVALID;
	packet = &passage->packet;
	family = packet->family;
	if (packet->protocol != (family == 4 ? IPPROTO_IPIP : IPPROTO_IPV6) || dsr_has_more(packet) ||
	    !ipip_is_node(ipcache_identity(&packet->source)))
		return DROP_UNKNOWN_L4;
	to.address = packet->destination;
	if (bpf_skb_adjust_room(skb, -(__s32)ipip_bytes(family), BPF_ADJ_ROOM_MAC, DSR_FLAGS))
		return DROP_INVALID;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->flags = PACKET_FROM_NETWORK;
	packet_pull(skb);
	ethertype = family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	error = packet_parse(skb, packet, ethertype);
	if (error)
		return error;
	named->address = packet->destination;
	to.port = packet->destination_port;
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	if (!error && packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
		error = fragment_resolve(packet);
	if (error)
		return error;
	named->port = packet->destination_port;
	if (!lb_service_lookup(&named->address, named->port, packet->protocol, LB_INTERNAL))
		return DROP_NO_BACKEND;
	packet->flags |= PACKET_NAMES_FRONTEND;
	passage->frontend = LB_FRONTEND_DSR;
	return 0;
}
