/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The tunnel's device, in tunnel mode: what comes out of it is judged and delivered, with the identity that
 * the sender's node wrote beside it; what the node's stack sends by it is addressed.
 */
#include <linux/if_packet.h>
#include "lib/deliver.h"
#include "lib/host.h"
#include "lib/proxy.h"
#include "lib/service_wire.h"
#include "lib/verdict.h"

/* What a node sent, to the node's own stack. */
static __always_inline int deliver_stack(struct __sk_buff *skb)
{
	/* The sender's node wrote some MAC addresses; which ones does not matter. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}

/* Did a node of the cluster send it?  Notes the identity that it names; 0, or a drop reason. */
GLOBAL int believe(struct __sk_buff *skb, struct passage *passage)
{
	union address node;

	if (!passage || !overlay_sender(skb, &node, &passage->verdict.source_identity))
		return DROP_NO_TUNNEL_KEY;
	return hop_is_node(&node, passage->epoch) ? 0 : DROP_UNKNOWN_SENDER;
}

static __always_inline int handle_from_overlay(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *destination;
	int error, action;
	__u32 device;
	bool host, served = false;

	packet->flags = PACKET_FROM_NETWORK | PACKET_FROM_OVERLAY;
	verdict_begin(skb, passage);
	packet_pull(skb);
	error = packet_parse(skb, packet, packet_ethertype(skb));
	if (!packet->family)
		return TC_ACT_SHOT;	/* no node sends what is no IP */
	action = believe(skb, passage);
	if (action)
		return action;
	if (!error && service_is_forged(passage))
		return DROP_INVALID_SOURCE_IP;
	if (!error) {
		action = service_answered(skb, passage);
		if (action < 0)
			return action;
		if (action == TC_ACT_REDIRECT) {
			metrics_count(0, POLICY_INGRESS, skb->len);
			return action;
		}
	}
	destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
	host = !destination || endpoint_is_host(destination);
	if (host && !error) {
		action = service_serve(skb, passage, &destination, &host, &served);
		if (action)
			return action;
	}
	if (host) {
		if (!passage->host_firewall && !served)
			return deliver_stack(skb);
		destination = passage->host_firewall ? host_receiver(skb, packet, destination) : NULL;
		if (!served && (!destination || host_cannot_do_without(packet, false)))
			return deliver_stack(skb);
		error = host_forgive(packet, error);
	}
	device = endpoint_device(destination);
	passage->verdict.endpoint = destination ? destination->id : 0;
	if (error)
		return error;

	error = verdict_take(skb, passage, NULL, destination);
	if (!error && !served && service_is_answer(passage))
		error = service_answer(skb, passage);
	if (error)
		return error;
	if (passage->to_proxy)
		action = proxy_deliver(skb, passage);
	else
		action = host ? deliver_stack(skb) : deliver_local(skb, packet->family, destination, device);
	if (action >= 0)
		metrics_count(0, POLICY_INGRESS, skb->len);
	return action;
}

SEC("tc/from_overlay")
int from_overlay(struct __sk_buff *skb)
{
	struct passage *passage = passage_begin(POLICY_INGRESS, TRACE_FROM_OVERLAY);

	return passage ? passage_end(skb, passage, handle_from_overlay(skb, passage)) : TC_ACT_SHOT;
}

static __always_inline int handle_to_overlay(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *source;
	const union address *hop;
	int error;

	if (overlay_is_addressed(skb))
		return TC_ACT_OK;	/* by from_pod */
	verdict_begin(skb, passage);
	packet_pull(skb);
	error = packet_parse(skb, packet, packet_ethertype(skb));
	if (!packet->family)
		return TC_ACT_SHOT;
	hop = hop_lookup(&packet->destination, passage->epoch);
	if (!hop || address_is_zero(hop)) {
		/* The stack greets every device with multicast: no news. */
		return address_is_multicast(&packet->destination) ? TC_ACT_SHOT : DROP_NO_TUNNEL_ENDPOINT;
	}
	source = endpoint_recall(&packet->source, passage->epoch, END_SENDER);
	if (passage->mark) {
		error = error ? error : proxy_leaves(skb, passage);
		if (error)
			return error;
		if (passage->frontend && passage->reply)
			source = NULL;	/* in the name of the frontend */
	} else if (passage->host_firewall && !skb->ingress_ifindex) {
		source = host_sender(packet, passage->epoch);
		if (source && !host_cannot_do_without(packet, true)) {
			passage->verdict.endpoint = source->id;
			passage->verdict.source_identity = source->identity;
			error = host_forgive(packet, error);
			if (!error)
				error = verdict_take(skb, passage, source, NULL);
			if (!error && service_is_answer(passage))
				error = service_answer(skb, passage);
			if (error)
				return error;
			metrics_count(0, POLICY_EGRESS, skb->len);
		}
	} else if (!error && !skb->ingress_ifindex && passage->switches & RUNTIME_NODE_SERVES) {
		error = service_node_answer(skb, passage);
		if (error)
			return error;
	}
	return overlay_address(skb, hop, source ? source->identity : 0);
}

SEC("tc/to_overlay")
int to_overlay(struct __sk_buff *skb)
{
	struct passage *passage = passage_begin(POLICY_EGRESS, TRACE_TO_OVERLAY);

	return passage ? passage_end(skb, passage, handle_to_overlay(skb, passage)) : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
