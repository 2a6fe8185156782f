/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* service_pod: Services for packets of pods whose sockets do not look for them (struct runtime,
 * RUNTIME_POD_SERVICES).  Before conntrack and policy, so that both see the backend.
 */
#pragma once
#include "service.h"

/* service_from_pod: the answer of a pod to itself; no action has this number. */
#define SERVED_SELF 2

static __always_inline bool service_is_to_self(const struct packet *packet)
{
	union address self;

	self_address(&self, packet->family);
	return address_equal(&packet->destination, &self);
}

/* Is the destination behind another node, and no address of that node itself?  In a tunnel a node's IPv6
 * address is behind its IPv4 address, like its pods': then the answer is no for all of them.
 */
static __always_inline bool service_is_elsewhere(const struct packet *packet, __u32 epoch)
{
	const union address *node = hop_lookup(&packet->destination, epoch);

	return node && !address_is_zero(node) && !address_equal(node, &packet->destination) &&
	       address_is4(node) == (packet->family == 4);
}

/* The first packet of a connection, and all after it. */
GLOBAL int service_connection_from_pod(struct __sk_buff *skb, struct passage *passage)
{
	const struct choice *choice = choice_get();
	const struct lb_service *service;
	struct packet *packet;
	struct end to = {};
	int error;

	if (!passage || !choice)
		return DROP_INVALID;
	packet = &passage->packet;
	service = service_asked(packet, LB_INTERNAL);
	if (!service)
		return NOT_SERVED;
	error = service_backend(service, packet);
	if (!error && address_is4(&choice->flow.address) != (packet->family == 4))
		error = DROP_NO_BACKEND;
	if (error == DROP_NO_BACKEND && !(service->flags & LB_DROP_EMPTY)) {
		report(skb, packet, &passage->verdict, EVENT_DROP, -error);
		return reject(skb, packet);
	}
	if (error)
		return error;
	passage->frontend = service->frontend;
	if (address_equal(&choice->flow.address, &packet->source)) {
		self_address(&to.address, packet->family);
		to.port = packet->source_port;
		error = rewrite_end(skb, packet, &to, REWRITE_SOURCE);
		if (error)
			return error;
	}
	to.address = choice->flow.address;
	to.port = choice->flow.port;
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : SERVED;
}

/* Sends what a pod sent for a frontend on to a backend: NOT_SERVED, SERVED (its destination is another one now),
 * SERVED_SELF, the action that answers it, or a drop reason.
 */
static __always_inline int service_from_pod(struct __sk_buff *skb, struct passage *passage)
{
	if (service_is_elsewhere(&passage->packet, passage->epoch))
		return NOT_SERVED;
	if (service_is_to_self(&passage->packet))
		return SERVED_SELF;
	if (passage->packet.flags & PACKET_ICMP_ERROR)
		return service_error_to_backend(skb, passage);
	return service_connection_from_pod(skb, passage);
}

/* What a pod answers itself: comes from the frontend, and goes to the pod's own address.  0, or a drop reason. */
GLOBAL int service_answer_self(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet, inner = {};
	struct end to = {};
	int error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	to.address = packet->source;
	to.port = packet->destination_port;
	if (packet->flags & PACKET_ICMP_ERROR) {
		struct end client = {};

		if (!icmp_inner(skb, packet, &inner))
			return DROP_INVALID;
		client.address = packet->source;
		client.port = inner.source_port;
		if (rewrite_inner(skb, packet, &inner, &client, REWRITE_SOURCE))
			return DROP_INVALID;
	}
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : service_answer(skb, passage);
}
