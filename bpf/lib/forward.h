/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* forward: what clients outside send to a backend of another node.  It goes there under an address of this node's
 * (lib/nat.h), and what is answered comes back this way; or, "direct server return", under the client's own
 * (lib/dsr.h).  Policy is asked where the backend is.
 */
#pragma once
#include "deliver.h"
#include "dsr.h"
#include "ipip.h"
#include "lb.h"
#include "nat.h"
#include "reject.h"
#include "rewrite.h"
#include "service.h"

/* As whom the receiving node has to take a client outside: prefixes have identities of each node's own. */
GLOBAL int forward_identity(const union address *client)
{
	__u32 identity;

	if (!client)
		return 0;
	identity = ipcache_identity(client);
	if (identity >> 24 != IDENTITY_SCOPE_WORLD)
		return identity;
	return address_is4(client) ? IDENTITY_WORLD_IPV4 : IDENTITY_WORLD_IPV6;
}

static __always_inline bool forward_is_last_hop(struct __sk_buff *skb, __u8 family)
{
	__u32 at = family == 4 ? __builtin_offsetof(struct iphdr, ttl) : __builtin_offsetof(struct ipv6hdr, hop_limit);
	__u8 ttl = 0;

	return bpf_skb_load_bytes(skb, L3_OFFSET + at, &ttl, 1) || ttl <= 1;
}

/* The size that fits *device* if the packet with *extra* bytes more does not; 0: it does. */
static __always_inline __u32 forward_limit(struct __sk_buff *skb, const struct packet *packet, __u32 device,
					   __u32 extra)
{
	__u32 length = skb->len - L3_OFFSET, mtu = 0;

	if (length + extra <= MTU_LEAST)
		return 0;
	if (!extra)
		return bpf_check_mtu(skb, device, &mtu, 0, BPF_MTU_CHK_SEGS) > 0 ? mtu : 0;
	/* Several in one: each gets as much longer. */
	if (skb->gso_size)
		length = packet->l4_offset - L3_OFFSET + L4_BASE + skb->gso_size;
	return bpf_check_mtu(skb, device, &mtu, 0, 0) >= 0 && length + extra > mtu ? mtu - extra : 0;
}

/* Answers a packet that has no hop left, or does not fit *device* with *extra* bytes more: the action, or a drop
 * reason; 0: it may go on.
 */
GLOBAL int forward_refuses(struct __sk_buff *skb, const struct packet *packet, __u32 device, __u32 extra)
{
	__u32 mtu;

	if (!packet)
		return DROP_INVALID;
	if (forward_is_last_hop(skb, packet->family))
		return reject_from_wire(skb, packet, 0);
	mtu = forward_limit(skb, packet, device, extra);
	return mtu ? reject_from_wire(skb, packet, mtu) : 0;
}

/* Is a connection to a backend behind *node* answered from there directly?  One that was sent on stays what it is.
 * None but our nodes, and of them only for their pods, know what a packet names.
 */
static __always_inline bool forward_is_direct(const struct choice *choice, const union address *node, bool tunnel)
{
	if (choice->flow.nat_port)
		return choice->flow.nat_port == LB_DIRECT;
	if (choice->flags & LB_DSR_IPIP && choice->flow.port != choice->key.port)
		return false;
	return choice->flags & LB_DSR && !tunnel && !address_is_zero(node) &&
	       !address_equal(node, &choice->flow.address);
}

/* Remembers how a connection is sent on. */
static __always_inline void forward_note_port(const struct choice *choice, __be16 port)
{
	struct lb_flow *flow = bpf_map_lookup_elem(&cirri_lb_flows, &choice->key);

	if (flow)
		flow->nat_port = port;
}

/* The address under which this node sends what is not its own; NULL: it has none of this family. */
static __always_inline const union address *forward_address(const struct runtime *runtime, __u8 family)
{
	const union address *own = family == 4 ? &runtime->nat4 : &runtime->nat6;

	return address_is_zero(own) ? NULL : own;
}

/* Sends a client's packet to its backend, which is none of this node's pods; the action, or a drop reason. */
GLOBAL int forward_connection(struct __sk_buff *skb, struct passage *passage)
{
	const struct runtime *runtime = runtime_get();
	struct choice *choice = choice_get();
	const union address *node, *own;
	struct packet *packet;
	__u32 identity = 0, extra = 0;
	__be16 port = LB_DIRECT;
	bool direct, tunnel;
	int result;

	if (!passage || !choice || !runtime)
		return DROP_INVALID;
	packet = &passage->packet;
	node = hop_lookup(&choice->flow.address, passage->epoch);
	if (!node)
		return DROP_INVALID;
	tunnel = runtime->tunnel_ifindex && !address_is_zero(node);
	direct = forward_is_direct(choice, node, tunnel);
	if (direct && !tunnel && dsr_opens(skb, packet))
		extra = choice->flags & LB_DSR_IPIP ? ipip_bytes(packet->family) : dsr_bytes(packet->family);
	result = forward_refuses(skb, packet, tunnel ? runtime->tunnel_ifindex : runtime->uplink_ifindex, extra);
	if (result)
		return result;
	if (tunnel)
		identity = forward_identity(&packet->source);
	choice->to.address = choice->flow.address;
	choice->to.port = choice->flow.port;
	result = rewrite_end(skb, packet, &choice->to, REWRITE_DESTINATION);
	if (result)
		return result;
	own = forward_address(runtime, packet->family);
	if (!own && (!direct || choice->flags & LB_DSR_IPIP))
		return DROP_NAT_NO_MAPPING;
	if (!direct) {
		result = nat_out(skb, packet, own, choice->frontend);
		port = packet->source_port;
	} else if (extra) {
		choice->to.address = choice->key.address;
		choice->to.port = choice->key.port;
		result = choice->flags & LB_DSR_IPIP ? ipip_put(skb, packet, &choice->to, own)
						     : dsr_put(skb, packet, &choice->to);
	}
	if (result)
		return result;
	if (port != choice->flow.nat_port)
		forward_note_port(choice, port);
	return deliver_anywhere(skb, packet, passage->epoch, identity);
}

/* Sends a client's ICMP error about what it was answered, which speaks of the backend's own answer already, to
 * that backend.
 */
GLOBAL int forward_error(struct __sk_buff *skb, struct passage *passage)
{
	const struct runtime *runtime = runtime_get();
	const union address *own;
	struct packet *packet;
	__u32 identity;
	int result;

	if (!passage || !runtime)
		return DROP_INVALID;
	packet = &passage->packet;
	if (forward_is_last_hop(skb, packet->family))
		return DROP_INVALID;	/* no error about an error */
	identity = forward_identity(&packet->source);
	/* Direct connections have no port of ours, and stay as they are. */
	own = forward_address(runtime, packet->family);
	result = own ? nat_send(skb, packet, own, passage->frontend, false) : 0;
	return result < 0 ? result : deliver_anywhere(skb, packet, passage->epoch, identity);
}
