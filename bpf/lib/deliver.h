/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* deliver: send an allowed packet on, as a router does, past the node's own stack. */
#pragma once
#include <linux/if_ether.h>
#include "endpoint.h"
#include "ipcache.h"
#include "overlay.h"
#include "packet.h"
#include "route.h"
#include "runtime.h"
#include "vxlan.h"
#include "way.h"

/* In __sk_buff.tc_index: from_pod sent it, as it is to leave the node. */
#define DELIVERED 0xc1

/* One hop less to live; false if this was the last one and nothing was changed. */
static __always_inline bool hop_decrement(struct __sk_buff *skb, __u8 family)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	if (family == 4) {
		struct iphdr *ip = data + L3_OFFSET;
		__u32 check;

		if ((void *)(ip + 1) > end || ip->ttl <= 1)
			return false;
		/* RFC 1624: the sum grows by what the word at ttl loses */
		check = (__u32)ip->check + bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
	} else {
		struct ipv6hdr *ip = data + L3_OFFSET;

		if ((void *)(ip + 1) > end || ip->hop_limit <= 1)
			return false;
		ip->hop_limit--;
		/* Where a NIC added up the whole packet: nothing in the header makes up for it, as in IPv4. */
		bpf_csum_update(skb, ~(__u32)bpf_htons(1));
	}
	return true;
}

/* Would hop_decrement fail? */
static __always_inline bool hop_is_last(struct __sk_buff *skb, __u8 family)
{
	void *data = (void *)(long)skb->data;
	const struct iphdr *ip4 = data + L3_OFFSET;
	const struct ipv6hdr *ip6 = data + L3_OFFSET;

	if ((void *)(ip4 + 1) > (void *)(long)skb->data_end)
		return true;
	return (family == 4 ? ip4->ttl : ip6->hop_limit) <= 1;
}

/* Into the network namespace of a pod of this node.
 * *device*: the endpoint's, as read before the verdict was taken: one that it got later is not open to it.
 */
static __always_inline int deliver_local(struct __sk_buff *skb, __u8 family, const struct endpoint *endpoint,
					 __u32 device)
{
	struct ethhdr *eth;

	if (!hop_decrement(skb, family))
		return TC_ACT_OK;	/* the node's stack answers */
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	mac_copy(eth->h_dest, endpoint->mac);
	mac_copy(eth->h_source, endpoint->node_mac);
	return bpf_redirect_peer(device, 0);
}

/* What every link takes that carries IPv6 (RFC 8200, section 5). */
#define MTU_LEAST 1280

/* Does the packet not fit the device?  The node's stack cuts it, or says so to who sent it. */
static __always_inline bool is_too_long(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;

	return skb->len > L3_OFFSET + MTU_LEAST && bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS) > 0;
}

/* To *node*, in a packet of the tunnel that is made here; 0: that is the device's. */
GLOBAL int deliver_vxlan(struct __sk_buff *skb, struct packet *packet, const union address *node, __u32 identity)
{
	const struct runtime *runtime = runtime_get();
	struct bpf_redir_neigh next = { .nh_family = AF_INET };
	int result;

	if (!packet || !node || !runtime || packet->flags & PACKET_FROM_NETWORK || !vxlan_is_ours(runtime) ||
	    !vxlan_takes(skb, packet->protocol))
		return 0;
	next.ipv4_nh = way_to(skb, node);
	if (!next.ipv4_nh)
		return 0;
	result = vxlan_put(skb, packet, node, identity);
	if (result <= 0)
		return result;
	skb->tc_index = DELIVERED;
	return bpf_redirect_neigh(runtime->uplink_ifindex, &next, sizeof(next), 0);
}

/* To *node*, in the tunnel, as sent by *identity*. */
GLOBAL int deliver_overlay(struct __sk_buff *skb, struct packet *packet, const union address *node, __u32 identity)
{
	const struct runtime *runtime = runtime_get();
	int action;

	if (!packet || !node || !runtime)
		return DROP_INVALID;
	if (!address_is4(node))
		return DROP_NO_TUNNEL_ENDPOINT;
	if (is_too_long(skb, runtime->tunnel_ifindex) || !hop_decrement(skb, packet->family))
		return TC_ACT_OK;
	action = deliver_vxlan(skb, packet, node, identity);
	if (action)
		return action;
	action = overlay_address(skb, node, identity);
	return action ? action : bpf_redirect(runtime->tunnel_ifindex, 0);
}

/* To the node behind which ipcache knows the destination; to the stack if there is none.
 * *identity*: who sends.
 */
static __always_inline int deliver_away(struct __sk_buff *skb, struct packet *packet, __u32 epoch, __u32 identity)
{
	const union address *node = hop_lookup(&packet->destination, epoch);
	const struct runtime *runtime;
	struct bpf_redir_neigh next = {};

	if (!node || address_is_zero(node))
		return TC_ACT_OK;
	runtime = runtime_get();
	if (!runtime || !runtime->uplink_ifindex)
		return DROP_HOST_NOT_READY;
	if (runtime->tunnel_ifindex)
		return deliver_overlay(skb, packet, node, identity);
	if (packet->family == 4) {
		next.nh_family = AF_INET;
		next.ipv4_nh = node->words[3];
	} else {
		next.nh_family = AF_INET6;
		__builtin_memcpy(next.ipv6_nh, node, sizeof(next.ipv6_nh));
	}
	if (is_too_long(skb, runtime->uplink_ifindex) || !hop_decrement(skb, packet->family))
		return TC_ACT_OK;
	skb->tc_index = DELIVERED;
	return bpf_redirect_neigh(runtime->uplink_ifindex, &next, sizeof(next), 0);
}

/* By the uplink, to the next hop that the routing table names.  For what came out of a tunnel: kernels before 6.18
 * lose some memory where bpf_redirect_neigh() looks for that itself, instead of the tunnel's metadata.
 */
GLOBAL int deliver_routed(struct __sk_buff *skb, const struct packet *packet, __u32 device)
{
	struct bpf_fib_lookup route = {};
	struct bpf_redir_neigh next = {};
	long result;

	if (!packet)
		return DROP_INVALID;
	route_ask(&route, &packet->source, &packet->destination, packet->family, device);
	result = bpf_fib_lookup(skb, &route, sizeof(route), BPF_FIB_LOOKUP_OUTPUT);
	if (!route_is_there(result))
		return DROP_UNROUTABLE;
	route_next(&next, &route);
	return bpf_redirect_neigh(device, &next, sizeof(next), 0);
}

/* Where the routing table says, by the uplink: an answer in the name of an address of the node's, which the stack
 * would take for a forgery.
 */
static __always_inline int deliver_out(struct __sk_buff *skb, const struct packet *packet)
{
	const struct runtime *runtime = runtime_get();

	if (!runtime || !runtime->uplink_ifindex)
		return DROP_HOST_NOT_READY;
	if (!hop_decrement(skb, packet->family))
		return TC_ACT_OK;
	skb->tc_index = DELIVERED;
	return packet->flags & PACKET_FROM_OVERLAY ? deliver_routed(skb, packet, runtime->uplink_ifindex)
						   : bpf_redirect_neigh(runtime->uplink_ifindex, NULL, 0, 0);
}

/* To the node behind which ipcache knows the destination, else where the routing table says: past the stack. */
GLOBAL int deliver_anywhere(struct __sk_buff *skb, struct packet *packet, __u32 epoch, __u32 identity)
{
	const union address *node;

	if (!packet)
		return DROP_INVALID;
	node = hop_lookup(&packet->destination, epoch);
	return node && !address_is_zero(node) ? deliver_away(skb, packet, epoch, identity) : deliver_out(skb, packet);
}
