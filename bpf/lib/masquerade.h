/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* masquerade: what pods send out of the cluster leaves under the node's address.
 * Written by cirri.datapath.  Read by bpf_node.c.
 * Mirror: libs/cirri/layout/masquerade.py
 */
#pragma once
#include "nat.h"

/* Destinations to which pods go under their own addresses, besides the cluster's. */
MAP_FLAGS(cirri_masquerade_not, LPM_TRIE, struct ipcache_key, __u32, 16384, BPF_F_NO_PREALLOC);

/* Prefixes outside the cluster have identities of a scope; the rest of outside has none, or a reserved one. */
static __always_inline bool identity_is_outside(__u32 identity)
{
	return !identity || identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6 || identity >> 24 == IDENTITY_SCOPE_WORLD;
}

/* Did the receiver of *packet* open its connection, or the one that an error is about?  Then it knows the source
 * by its own address.
 */
GLOBAL int masquerade_answers(struct __sk_buff *skb, const struct packet *packet)
{
	struct packet inner = {};
	struct ct_value *value;
	struct ct_key key;
	bool high, reply;

	if (!packet)
		return 0;
	if (packet->flags & PACKET_ICMP_ERROR) {
		if (!icmp_inner(skb, packet, &inner))
			return 0;
		high = ct_key_set(&key, &inner);
	} else {
		high = ct_key_set(&key, packet);
	}
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (!value || value->expires < bpf_ktime_get_coarse_ns())
		return 0;
	reply = high != !!(value->flags & CT_FROM_HIGH);
	return reply != !!(packet->flags & PACKET_ICMP_ERROR);
}

/* Is *destination* of the cluster, or listed as one that sees pods' own addresses? */
GLOBAL int masquerade_never(const union address *destination)
{
	struct ipcache_key key;

	if (!destination || !identity_is_outside(ipcache_identity(destination)))
		return 1;
	key.prefix_len = 128;
	__builtin_memcpy(key.address, destination, sizeof(key.address));
	return bpf_map_lookup_elem(&cirri_masquerade_not, &key) != NULL;
}

/* A packet that the stack forwards to the uplink: NAT_DONE (it is the node's now), NAT_NONE, or a drop reason. */
GLOBAL int masquerade(struct __sk_buff *skb, struct passage *passage)
{
	const struct runtime *runtime = runtime_get();
	const union address *address, *hop;
	const struct endpoint *source;
	struct packet *packet;
	int result;

	if (!passage || !runtime)
		return NAT_NONE;
	packet = &passage->packet;
	if (!(runtime->flags & (packet->family == 4 ? RUNTIME_MASQUERADE4 : RUNTIME_MASQUERADE6)))
		return NAT_NONE;
	address = packet->family == 4 ? &runtime->nat4 : &runtime->nat6;
	source = endpoint_recall(&packet->source, passage->epoch, END_SENDER);
	if (!source || endpoint_is_host(source))
		return NAT_NONE;
	passage->verdict.endpoint = source->id;
	passage->verdict.source_identity = source->identity;
	hop = hop_lookup(&packet->destination, passage->epoch);
	if (hop && !address_is_zero(hop))
		return NAT_NONE;
	result = nat_send(skb, packet, address, 0, false);
	if (result != NAT_NONE)
		return result;
	if (masquerade_never(&packet->destination) || masquerade_answers(skb, packet))
		return NAT_NONE;
	/* A tunnel from a node's address is believed: no pod sends one in its name. */
	if (runtime->tunnel_ifindex && packet->protocol == IPPROTO_UDP &&
	    packet->destination_port == runtime->tunnel_port)
		return DROP_UNKNOWN_SENDER;
	result = nat_send(skb, packet, address, 0, true);
	return result == NAT_NONE ? DROP_INVALID : result;
}
