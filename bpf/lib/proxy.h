/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* proxy: packets to proxies of this node and from them.  A connection that policy redirects ends in a proxy, which
 * keeps its addresses on both sides: to the client it is the server, to the server the client.
 */
#pragma once
#include <linux/if_packet.h>
#include "mark.h"
#include "service.h"
#include "socket.h"
#include "verdict.h"

/* To the proxy, by the node's stack: what came in by a device.  The action, or a drop reason. */
GLOBAL int proxy_deliver(struct __sk_buff *skb, const struct passage *passage)
{
	int error;

	if (!passage)
		return DROP_INVALID;
	if (passage->proxy_port) {
		error = passage->packet.protocol == IPPROTO_TCP
				? socket_assign_tcp(skb, &passage->packet, passage->proxy_port)
				: socket_assign_udp(skb, &passage->packet, passage->proxy_port);
		if (error)
			return error;
	}
	skb->mark = MARK_TO_PROXY;
	/* Whatever MAC address it was sent to: a tunnel's sender wrote some, and proxy_turn() a pod's. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}

/* Does a process of this node answer a proxy, which asked in the name of a pod?  That went by the loopback, where no
 * program saw it.
 */
static __always_inline bool proxy_asked_here(struct __sk_buff *skb, const struct passage *passage)
{
	const struct packet *packet = &passage->packet;

	return passage->switches & RUNTIME_PROXIES && !passage->mark && !skb->ingress_ifindex &&
	       (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP) && socket_asked(skb, packet);
}

/* The same of what leaves by a pod's device: it comes back in by it, where a socket can be given to it. */
static __always_inline int proxy_turn(struct __sk_buff *skb, const struct passage *passage)
{
	skb->mark = MARK_TO_PROXY | passage->proxy_port << 16;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

/* And what came back so, from_pod gives to the proxy. */
GLOBAL int proxy_turned(struct __sk_buff *skb, struct passage *passage)
{
	int error;

	if (!passage)
		return DROP_INVALID;
	passage->verdict.direction = POLICY_INGRESS;
	passage->proxy_port = skb->mark >> 16;
	packet_pull(skb);
	error = packet_parse(skb, &passage->packet, packet_ethertype(skb));
	return error ? error : proxy_deliver(skb, passage);
}

/* What a proxy sends out of the node: its answer to a client, or what it sends on to a server.  TC_ACT_OK, or a drop
 * reason.  Of the identity of who is in the source's place the program of the tunnel takes care.
 */
static __always_inline int proxy_leaves(struct __sk_buff *skb, struct passage *passage)
{
	int error;

	if (passage->mark == MARK_INGRESS_SERVER)
		return DROP_UNROUTABLE;	/* its pod is gone */
	error = verdict_take(skb, passage, NULL, NULL);
	if (!error && service_is_answer(passage))
		error = service_answer(skb, passage);
	if (error)
		return error;
	skb->mark = 0;	/* a tunnel's own packet would keep it */
	metrics_count(0, POLICY_EGRESS, skb->len);
	return TC_ACT_OK;
}
