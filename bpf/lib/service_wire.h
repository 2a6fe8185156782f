/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* service_wire: Services for clients outside, with backends on this node or another. */
#pragma once
#include "forward.h"
#include "nat.h"
#include "service.h"

#define SERVED_AWAY 5	/* service_connection_from_wire: the backend is none of this node's pods; no action has it */

/* The first packet of a connection, and all after it. */
GLOBAL int service_connection_from_wire(struct __sk_buff *skb, struct passage *passage)
{
	const struct choice *choice = choice_get();
	const struct lb_service *service;
	struct packet *packet;
	struct end to = {};
	int error;

	if (!passage || !choice)
		return DROP_INVALID;
	packet = &passage->packet;
	service = service_asked(packet, LB_EXTERNAL);
	if (!service)
		return NOT_SERVED;
	/* A client that names a frontend itself would have the backend's node answer others in that name. */
	if (dsr_has_more(packet) && dsr_is_there(skb, packet))
		return DROP_INVALID;
	error = service_backend(service, packet);
	if (error == DROP_NO_BACKEND && !(service->flags & LB_DROP_EMPTY))
		return reject(skb, packet);
	if (error)
		return error;
	if (!service_is_here(&choice->flow.address, passage->epoch))
		return SERVED_AWAY;
	passage->frontend = service->frontend;
	to.address = choice->flow.address;
	to.port = choice->flow.port;
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : SERVED;
}

/* Sends a packet from the wire on to a backend, if it is for a frontend: NOT_SERVED, SERVED (its destination
 * is another one now), the action that answers it, or a drop reason.
 */
static __always_inline int service_from_wire(struct __sk_buff *skb, struct passage *passage)
{
	int action;

	if (passage->packet.flags & PACKET_ICMP_ERROR) {
		action = service_error_to_backend(skb, passage);
		if (action == SERVED && !service_is_here(&passage->packet.destination, passage->epoch))
			action = forward_error(skb, passage);
		return action;
	}
	action = service_connection_from_wire(skb, passage);
	return action == SERVED_AWAY ? forward_connection(skb, passage) : action;
}

/* Serves a packet that is for none of this node's pods: the action that ends it, or a drop reason; 0: it goes on, and
 * if it is *served* now, to *destination*, which is the node itself if *host*.
 */
static __always_inline int service_serve(struct __sk_buff *skb, struct passage *passage,
					 const struct endpoint **destination, bool *host, bool *served)
{
	const struct packet *packet = &passage->packet;
	int action = service_from_wire(skb, passage);

	if (action == TC_ACT_REDIRECT)
		metrics_count(0, POLICY_INGRESS, skb->len);
	if (action < 0 || action == TC_ACT_REDIRECT)
		return action;
	if (action != SERVED)
		return 0;
	*served = true;
	*destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
	*host = !*destination || endpoint_is_host(*destination);
	return *destination || ipcache_identity(&packet->destination) == IDENTITY_HOST ? 0 : DROP_NO_BACKEND;
}

/* What answers something that left under this node's address (lib/nat.h), if it does: NOT_SERVED; SERVED, and it is
 * for a pod of this node now; the action that sends it to the client of a frontend; or a drop reason.
 */
static __always_inline int service_answered(struct __sk_buff *skb, struct passage *passage)
{
	__u32 frontend = 0;
	int result;

	if (!nat_expected(&passage->packet))
		return NOT_SERVED;
	result = nat_back(skb, &passage->packet, &frontend);
	if (result != NAT_DONE)
		return result < 0 ? result : NOT_SERVED;
	if (!frontend)
		return SERVED;
	passage->frontend = frontend;
	result = service_answer(skb, passage);
	return result ? result : deliver_anywhere(skb, &passage->packet, passage->epoch, 0);
}
