/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* service: Services for packets.  What comes from the wire for a frontend goes to a pod of this node; what the
 * pod answers comes from the frontend.  Policy and conntrack see the pod's address, and the client's.
 */
#pragma once
#include "config.h"
#include "lb.h"
#include "reject.h"
#include "rewrite.h"
#include "verdict.h"

enum { NOT_SERVED = 0, SERVED = 1 };	/* no action has the number of the latter */

static __always_inline bool service_follows(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* May *packet*'s source talk to the frontend? */
static __always_inline bool service_lets_in(const struct lb_service *service, const union address *source)
{
	struct lb_range_key key;
	bool listed;

	if (!(service->flags & (LB_RANGES_ALLOW | LB_RANGES_DENY)))
		return true;
	key.prefix_len = 32 + 128;
	key.frontend = service->frontend;
	key.address = *source;
	listed = bpf_map_lookup_elem(&cirri_lb_ranges, &key);
	return service->flags & LB_RANGES_DENY ? !listed : listed;
}

/* Does the flow lead to a backend that may have this packet?  SYN: one that takes connections. */
static __always_inline bool service_flow_holds(struct lb_flow *flow, const struct lb_service *service,
					       const struct packet *packet, __u64 now, __u32 epoch,
					       struct lb_backend *backend)
{
	bool opens = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	__u32 state;

	if (flow->expires < now)
		return false;
	backend->address = flow->address;
	backend->port = flow->port;
	if (flow->epoch == epoch && !opens)
		return true;
	state = lb_state(service->frontend, backend);
	if (!state || (opens && state != LB_TAKING))
		return false;
	flow->epoch = epoch;
	return true;
}

static __always_inline __u64 service_lifetime_ns(__u8 protocol)
{
	return (protocol == IPPROTO_TCP ? ct_timeout_tcp_s : ct_timeout_any_s) * 1000000000ull;
}

/* Which backend *packet* goes to: the one that its connection has, or one chosen now; 0, or why it is dropped. */
GLOBAL int service_backend(const struct lb_service *service, const struct packet *packet, struct lb_backend *backend)
{
	struct lb_flow_key key = {};
	struct lb_flow fresh = {}, *flow;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 epoch = runtime_lb_epoch(), number;

	if (!service || !packet || !backend)
		return DROP_INVALID;
	key.client = packet->source;
	key.address = packet->destination;
	key.client_port = packet->source_port;
	key.port = packet->destination_port;
	key.protocol = packet->protocol;
	flow = bpf_map_lookup_elem(&cirri_lb_flows, &key);
	if (flow && service_flow_holds(flow, service, packet, now, epoch, backend)) {
		flow->expires = now + service_lifetime_ns(packet->protocol);
		return 0;
	}
	if (!service_lets_in(service, &packet->source))
		return DROP_SOURCE_RANGE;
	number = lb_number(service, &packet->source, packet->source_port, packet->destination_port, packet->protocol);
	if (!lb_choose(service, &packet->source, number, backend))
		return DROP_NO_BACKEND;
	fresh.address = backend->address;
	fresh.expires = now + service_lifetime_ns(packet->protocol);
	fresh.epoch = epoch;
	fresh.port = backend->port;
	bpf_map_update_elem(&cirri_lb_flows, &key, &fresh, BPF_ANY);
	return 0;
}

/* A client's ICMP error about what a backend answered: its receiver is that backend. */
GLOBAL int service_error_to_backend(struct __sk_buff *skb, struct packet *packet)
{
	struct packet inner = {};
	struct lb_flow_key key = {};
	const struct lb_flow *flow;
	struct end to = {};
	int error;

	if (!packet || !icmp_inner(skb, packet, &inner) || !service_follows(inner.protocol) ||
	    !address_equal(&inner.source, &packet->destination))
		return NOT_SERVED;
	key.client = inner.destination;
	key.address = inner.source;
	key.client_port = inner.destination_port;
	key.port = inner.source_port;
	key.protocol = inner.protocol;
	flow = bpf_map_lookup_elem(&cirri_lb_flows, &key);
	if (!flow)
		return NOT_SERVED;
	to.address = flow->address;
	to.port = flow->port;
	error = rewrite_inner(skb, packet, &inner, &to, REWRITE_SOURCE);
	if (!error)
		error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : SERVED;
}

/* The first packet of a connection, and all after it. */
GLOBAL int service_connection_from_wire(struct __sk_buff *skb, struct passage *passage)
{
	const struct lb_service *service;
	struct lb_backend backend = {};
	struct packet *packet;
	struct end to = {};
	int error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	if (!service_follows(packet->protocol))
		return NOT_SERVED;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) && fragment_resolve(packet))
		return NOT_SERVED;
	service = lb_service_lookup(&packet->destination, packet->destination_port, packet->protocol, LB_EXTERNAL);
	if (!service)
		return NOT_SERVED;
	error = service_backend(service, packet, &backend);
	if (error == DROP_NO_BACKEND && !(service->flags & LB_DROP_EMPTY))
		return reject(skb, packet);
	if (error)
		return error;
	passage->frontend = service->frontend;
	to.address = backend.address;
	to.port = backend.port;
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : SERVED;
}

/* Sends a packet from the wire on to a backend, if it is for a frontend: NOT_SERVED, SERVED (its destination
 * is another one now), the action that answers it, or a drop reason.
 */
static __always_inline int service_from_wire(struct __sk_buff *skb, struct passage *passage)
{
	if (passage->packet.flags & PACKET_ICMP_ERROR)
		return service_error_to_backend(skb, &passage->packet);
	return service_connection_from_wire(skb, passage);
}

/* Does the packet travel to who knows the other end by a frontend?  To be asked once its verdict was taken. */
static __always_inline bool service_is_answer(const struct passage *passage)
{
	return passage->frontend && (passage->reply || passage->packet.flags & PACKET_ICMP_ERROR);
}

/* What a backend sends on a connection that came by a frontend comes from that; ICMP errors about what was sent
 * to it are about that, and come from it if they are the backend's own.  0, or a drop reason.
 */
GLOBAL int service_answer(struct __sk_buff *skb, struct passage *passage)
{
	const struct lb_frontend *frontend;
	struct packet *packet, inner = {};
	struct end to = {};
	__u32 number;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	number = passage->frontend;
	frontend = bpf_map_lookup_elem(&cirri_lb_frontends, &number);
	if (!frontend)
		return DROP_NO_BACKEND;	/* it is not served any more, and nobody else's answer is waited for */
	to.address = frontend->address;
	to.port = frontend->port;
	if (packet->flags & PACKET_ICMP_ERROR) {
		if (!icmp_inner(skb, packet, &inner))
			return DROP_INVALID;
		if (rewrite_inner(skb, packet, &inner, &to, REWRITE_DESTINATION))
			return DROP_INVALID;
		if (!address_equal(&inner.destination, &packet->source))
			return 0;	/* some router's */
	}
	return rewrite_end(skb, packet, &to, REWRITE_SOURCE);
}

/* Is the node itself the backend under *address*, to which there is the entry *listed*, if any? */
static __always_inline bool service_is_node(const union address *address, const struct endpoint *listed)
{
	return listed ? endpoint_is_host(listed) : ipcache_identity(address) == IDENTITY_HOST;
}

/* What the node sends while nobody is asked about it: an answer of a process of its own comes from the frontend.
 * 0, or a drop reason.
 */
GLOBAL int service_node_answer(struct __sk_buff *skb, struct passage *passage)
{
	const struct packet *packet;
	struct ct_value *value;
	struct ct_key key;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) && fragment_resolve(&passage->packet))
		return 0;
	passage->now = bpf_ktime_get_coarse_ns();
	passage->latest = passage->epoch;
	passage->reply = 0;
	if (packet->flags & PACKET_ICMP_ERROR)
		return icmp_is_related(skb, passage, NULL) && passage->frontend ? service_answer(skb, passage) : 0;
	passage->high = ct_key_set(&key, packet);
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (!value || !value->frontend)
		return 0;
	passage->reply = passage->high != !!(value->flags & CT_FROM_HIGH);
	if (!passage->reply || !ct_continues(value, packet, true, passage->now))
		return 0;
	if (ct_update(value, packet, true, passage->now, skb->len))
		report_closed(skb, passage, value);
	passage->frontend = value->frontend;
	return service_answer(skb, passage);
}

/* An answer under an address of the node's: the stack would take it for a forgery and is passed by. */
static __always_inline int service_deliver(struct __sk_buff *skb, const struct packet *packet)
{
	const struct runtime *runtime = runtime_get();

	if (!runtime || !runtime->uplink_ifindex)
		return DROP_HOST_NOT_READY;
	return hop_decrement(skb, packet->family) ? bpf_redirect_neigh(runtime->uplink_ifindex, NULL, 0, 0)
						  : TC_ACT_OK;
}
