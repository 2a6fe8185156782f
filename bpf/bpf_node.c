/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The device to the other nodes: what is for a pod of this node is judged and delivered here,
 * the rest is the stack's, untouched; with the host firewall the node's own traffic is judged too.
 */
#include <linux/if_packet.h>
#include "lib/deliver.h"
#include "lib/host.h"
#include "lib/l2.h"
#include "lib/masquerade.h"
#include "lib/proxy.h"
#include "lib/service_wire.h"
#include "lib/verdict.h"

static __always_inline int handle_from_network(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *destination;
	int error, action;
	__u32 device;
	bool tagged = skb->vlan_present, host, served = false;

	packet->flags = PACKET_FROM_NETWORK;
	verdict_begin(skb, passage);
	/* A switch that does not know where a MAC address is sends to everybody: the stack drops it, others serve it. */
	if (skb->pkt_type == PACKET_OTHERHOST && passage->switches & RUNTIME_OWN_FRAMES)
		return TC_ACT_OK;
	/* The stack takes the tag off and forwards, and to_pod judges. */
	if (tagged && !passage->host_firewall)
		return TC_ACT_OK;
	packet_pull(skb);
	error = packet_parse(skb, packet, packet_ethertype(skb));
	if (!error && !tagged && vxlan_is_one(packet))
		error = vxlan_take(skb, packet, &passage->verdict.source_identity, passage->epoch);
	if (!error && service_is_forged(passage))
		return DROP_INVALID_SOURCE_IP;
	if (!error && !tagged) {
		action = service_answered(skb, passage);
		if (action < 0)
			return action;
		if (action == TC_ACT_REDIRECT) {
			metrics_count(0, POLICY_INGRESS, skb->len);
			return action;
		}
		if (action == SERVED && !endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER))
			return DROP_UNROUTABLE;	/* the pod is gone */
	}
	destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
	host = !destination || endpoint_is_host(destination);
	if (host && !error && !tagged) {
		action = service_serve(skb, passage, &destination, &host, &served);
		if (action)
			return action;
	}
	if (host) {
		if (!served && !tagged && (action = l2_answer(skb, packet)))
			return action;
		/* What is no IP packet, ARP above all, is not judged. */
		if ((!passage->host_firewall && !served) || !packet->family)
			return TC_ACT_OK;
		destination = passage->host_firewall ? host_receiver(skb, packet, destination) : NULL;
		if (!served && (!destination || host_cannot_do_without(packet, false)))
			return TC_ACT_OK;
		error = host_forgive(packet, error);
	} else if (tagged) {
		return TC_ACT_OK;
	}
	device = endpoint_device(destination);
	passage->verdict.endpoint = destination ? destination->id : 0;
	if (!host && !passage->frontend && !(packet->flags & PACKET_FROM_OVERLAY)) {
		if (!error && dsr_has_more(packet))
			error = dsr_receive(skb, passage);
		else if (error == DROP_UNKNOWN_L4)
			error = ipip_receive(skb, passage);
	}
	if (error)
		return error;

	error = verdict_take(skb, passage, NULL, destination);
	if (!error && packet->flags & PACKET_NAMES_FRONTEND)
		error = dsr_note(packet);
	else if (!error && !served && service_is_answer(passage))
		error = service_answer(skb, passage);
	if (error)
		return error;
	if (passage->to_proxy)
		action = proxy_deliver(skb, passage);
	else
		action = host ? TC_ACT_OK : deliver_local(skb, packet->family, destination, device);
	if (action >= 0)
		metrics_count(0, POLICY_INGRESS, skb->len);
	return action;
}

SEC("tc/from_network")
int from_network(struct __sk_buff *skb)
{
	struct passage *passage = passage_begin(POLICY_INGRESS, TRACE_FROM_NETWORK);

	return passage ? passage_end(skb, passage, handle_from_network(skb, passage)) : TC_ACT_SHOT;
}

static __always_inline int handle_to_network(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *source;
	bool masquerades, serves;
	int error;

	verdict_begin(skb, passage);
	masquerades = (skb->ingress_ifindex || passage->mark == MARK_EGRESS_SERVER) && runtime_masquerades();
	serves = !skb->ingress_ifindex && passage->switches & RUNTIME_NODE_SERVES;
	if (!passage->host_firewall && !masquerades && !serves && !passage->mark)
		return TC_ACT_OK;
	packet_pull(skb);
	error = packet_parse(skb, packet, packet_ethertype(skb));
	if (!packet->family)
		return TC_ACT_OK;
	if (passage->mark) {
		error = error ? error : proxy_leaves(skb, passage);
		if (error)
			return error;
	}
	if (masquerades && !error) {
		int result = masquerade(skb, passage);

		if (result != NAT_NONE)
			return result == NAT_DONE ? TC_ACT_OK : result;
	}
	if (passage->mark)
		return TC_ACT_OK;
	if (!passage->host_firewall) {
		error = serves && !error ? service_node_answer(skb, passage) : 0;
		return error ? error : TC_ACT_OK;
	}
	if (skb->ingress_ifindex) {
		/* Only forwarded.  Under the node's address its answers come to the node, and are known by this. */
		if (error || !endpoint_is_host(endpoint_recall(&packet->source, passage->epoch, END_SENDER)))
			return TC_ACT_OK;
		packet->flags |= PACKET_MASQUERADED;
		verdict_take(skb, passage, NULL, NULL);
		return TC_ACT_OK;
	}
	source = host_sender(packet, passage->epoch);
	if (!source || host_cannot_do_without(packet, true))
		return TC_ACT_OK;
	error = host_forgive(packet, error);
	passage->verdict.endpoint = source->id;
	passage->verdict.source_identity = source->identity;
	if (error)
		return error;
	error = verdict_take(skb, passage, source, NULL);
	if (!error && service_is_answer(passage))
		error = service_answer(skb, passage);
	if (error)
		return error;
	metrics_count(0, POLICY_EGRESS, skb->len);
	return TC_ACT_OK;
}

SEC("tc/to_network")
int to_network(struct __sk_buff *skb)
{
	struct passage *passage;

	if (skb->tc_index == DELIVERED)
		return TC_ACT_OK;
	passage = passage_begin(POLICY_EGRESS, TRACE_TO_NETWORK);
	return passage ? passage_end(skb, passage, handle_to_network(skb, passage)) : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
