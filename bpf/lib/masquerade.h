/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* masquerade: what pods send out of the cluster leaves under the node's address.
 * Written by cirri.datapath.  Read by bpf_pod.c, bpf_node.c.
 * Mirror: libs/cirri/layout/masquerade.py
 */
#pragma once
#include "deliver.h"
#include "nat.h"

/* Destinations to which pods go under their own addresses, besides the cluster's. */
MAP_FLAGS(cirri_masquerade_not, LPM_TRIE, struct ipcache_key, __u32, 16384, BPF_F_NO_PREALLOC);

/* Was the connection that has *key* opened by the source of a packet with that (*high*: its end stored so)? */
static __always_inline bool masquerade_opened(const struct ct_key *key, bool high, bool by_source)
{
	const struct ct_value *value = bpf_map_lookup_elem(&cirri_ct, key);

	return value && value->expires >= bpf_ktime_get_coarse_ns() &&
	       (high == !!(value->flags & CT_FROM_HIGH)) == by_source;
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

/* The address under which *packet* is to leave if its destination is outside the cluster; NULL: its own. */
static __always_inline const union address *masquerade_address(struct passage *passage)
{
	const struct runtime *runtime = runtime_get();
	const struct packet *packet = &passage->packet;
	const struct endpoint *source;
	const union address *hop;

	if (!runtime || !(runtime->flags & (packet->family == 4 ? RUNTIME_MASQUERADE4 : RUNTIME_MASQUERADE6)))
		return NULL;
	source = endpoint_recall(&packet->source, passage->epoch, END_SENDER);
	if (!source || endpoint_is_host(source))
		return NULL;
	passage->verdict.endpoint = source->id;
	passage->verdict.source_identity = source->identity;
	hop = hop_lookup(&packet->destination, passage->epoch);
	if (hop && !address_is_zero(hop))
		return NULL;
	return packet->family == 4 ? &runtime->nat4 : &runtime->nat6;
}

/* A tunnel from a node's address is believed: no pod sends one in its name. */
static __always_inline bool masquerade_is_tunnel(const struct packet *packet)
{
	const struct runtime *runtime = runtime_get();

	return runtime && runtime->tunnel_ifindex && packet->protocol == IPPROTO_UDP &&
	       packet->destination_port == runtime->tunnel_port;
}

/* A pod's packet that is no error, on its way to the uplink: NAT_DONE (it is the node's now), NAT_NONE, or a drop
 * reason.  Who opened the connection itself knows the pod by its own address.
 */
GLOBAL int masquerade_connection(struct __sk_buff *skb, struct passage *passage)
{
	const union address *address;
	struct packet *packet;
	struct ct_key key;
	int result;

	address = passage ? masquerade_address(passage) : NULL;
	if (!address)
		return NAT_NONE;
	packet = &passage->packet;
	result = nat_connection_out(skb, packet, address, 0, false);
	if (result != NAT_NONE)
		return result;
	if (masquerade_never(&packet->destination) ||
	    masquerade_opened(&key, ct_key_set(&key, packet), false))
		return NAT_NONE;
	if (masquerade_is_tunnel(packet))
		return DROP_UNKNOWN_SENDER;
	result = nat_connection_out(skb, packet, address, 0, true);
	return result == NAT_NONE ? DROP_INVALID : result;
}

/* The same of an error. */
GLOBAL int masquerade_error(struct __sk_buff *skb, struct passage *passage)
{
	struct packet inner = {}, *packet;
	const union address *address;
	struct ct_key key;
	int result;

	address = passage ? masquerade_address(passage) : NULL;
	if (!address)
		return NAT_NONE;
	packet = &passage->packet;
	result = nat_error_out(skb, packet, address, 0);
	if (result != NAT_NONE || masquerade_never(&packet->destination))
		return result;
	if (!icmp_inner(skb, packet, &inner) || !masquerade_opened(&key, ct_key_set(&key, &inner), true))
		return DROP_INVALID;
	return NAT_NONE;
}

static __always_inline int masquerade(struct __sk_buff *skb, struct passage *passage)
{
	return passage->packet.flags & PACKET_ICMP_ERROR ? masquerade_error(skb, passage)
							 : masquerade_connection(skb, passage);
}

/* Does what the pod sends leave by the uplink, by the node's routes, as it is?  Then *next* is where to. */
GLOBAL int masquerade_route(struct __sk_buff *skb, const struct packet *packet, struct bpf_redir_neigh *next)
{
	const struct runtime *runtime = runtime_get();
	struct bpf_fib_lookup route = {};
	long result;

	if (!packet || !next || !runtime || !runtime->uplink_ifindex || is_too_long(skb, runtime->uplink_ifindex))
		return 0;
	route_ask(&route, &packet->source, &packet->destination, packet->family, skb->ifindex);
	route.l4_protocol = packet->protocol;
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	if (!route_is_there(result) || route.ifindex != runtime->uplink_ifindex)
		return 0;
	route_next(next, &route);
	return 1;
}

/* What a pod sends to no pod and no other node: out of the cluster at once, past the stack, if it is an ordinary packet
 * of a connection that the pod opened.  TC_ACT_OK: it is the stack's, and to_network sees it again.
 */
GLOBAL int masquerade_away(struct __sk_buff *skb, struct passage *passage)
{
	const __u32 others = PACKET_ICMP_ERROR | PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT;
	const struct runtime *runtime = runtime_get();
	struct bpf_redir_neigh next = {};
	struct packet *packet;
	int result;

	if (!passage || !runtime)
		return TC_ACT_OK;
	packet = &passage->packet;
	if (passage->reply || packet->flags & others || !masquerade_address(passage) ||
	    hop_is_last(skb, packet->family) || !masquerade_route(skb, packet, &next))
		return TC_ACT_OK;
	result = masquerade_connection(skb, passage);
	if (result != NAT_DONE)
		return result == NAT_NONE ? TC_ACT_OK : result;
	if (!hop_decrement(skb, packet->family))
		return DROP_INVALID;
	skb->tc_index = DELIVERED;
	return bpf_redirect_neigh(runtime->uplink_ifindex, &next, sizeof(next), 0);
}
