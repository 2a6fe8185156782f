/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The device of a pod on the node's side: what leaves the pod, and what the node's stack sends to it.
 * One program serves every pod; what differs is in the maps.
 */
#include "lib/arp.h"
#include "lib/deliver.h"
#include "lib/masquerade.h"
#include "lib/nd.h"
#include "lib/proxy.h"
#include "lib/service_pod.h"
#include "lib/verdict.h"

/* Is the frame the pod's own, and sent to one receiver? */
static __always_inline int check_frame(struct __sk_buff *skb, const struct endpoint *endpoint)
{
	const struct ethhdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return DROP_UNKNOWN_L2;
	if (!mac_equal_in_place(eth->h_source, endpoint->mac))
		return DROP_INVALID_SOURCE_MAC;
	return eth->h_dest[0] & 1 ? DROP_UNROUTABLE : 0;
}

static __always_inline int handle_from_pod(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *source, *destination;
	int error, served = NOT_SERVED;
	__be16 ethertype;
	__u32 device;

	if (skb->vlan_present)
		return DROP_VLAN_FILTERED;
	packet_pull(skb);
	ethertype = packet_ethertype(skb);
	if (ethertype == bpf_htons(ETH_P_ARP))
		return arp_from_pod(skb, packet);
	error = packet_parse(skb, packet, ethertype);
	if (error)
		return error;
	if (packet->flags & PACKET_NEIGHBOUR)
		return nd_from_pod(skb, packet);

	verdict_begin(skb, passage);
	source = endpoint_recall(&packet->source, passage->epoch, END_SENDER);
	if (!source || source->ifindex != skb->ifindex)
		return DROP_INVALID_SOURCE_IP;
	passage->verdict.endpoint = source->id;
	passage->verdict.source_identity = source->identity;
	error = check_frame(skb, source);
	if (error)
		return error;
	destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
	if (passage->switches & RUNTIME_POD_SERVICES && (!destination || endpoint_is_host(destination))) {
		served = service_from_pod(skb, passage);
		if (served < 0 || served == TC_ACT_REDIRECT)
			return served;
		if (served == SERVED)
			destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
		else if (served == SERVED_SELF)
			destination = source;
	}
	if (!destination && address_is_unroutable(&packet->destination))
		return DROP_UNROUTABLE;
	device = endpoint_device(destination);

	if (endpoint_is_host(destination) && !passage->host_firewall)
		destination = NULL;
	error = verdict_take(skb, passage, source, destination);
	if (error)
		return error;
	if (passage->to_proxy)
		return proxy_deliver(skb, passage);
	if (served == SERVED_SELF) {
		error = service_is_answer(passage) ? service_answer_self(skb, passage) : DROP_UNROUTABLE;
		if (error)
			return error;
	} else if (served != SERVED && service_is_answer(passage)) {
		error = service_answer(skb, passage);
		if (error)
			return error;
		if (!destination)
			return deliver_anywhere(skb, packet, passage->epoch, 0);
	}
	if (!destination || endpoint_is_host(destination)) {
		error = deliver_away(skb, packet, passage->epoch, source->identity);
		return error == TC_ACT_OK && !destination ? masquerade_away(skb, passage) : error;
	}
	return deliver_local(skb, packet->family, destination, device);
}

SEC("tc/from_pod")
int from_pod(struct __sk_buff *skb)
{
	struct passage *passage = passage_begin(POLICY_EGRESS, TRACE_FROM_ENDPOINT);
	int action;

	if (!passage)
		return TC_ACT_SHOT;
	/* No pod can set a mark. */
	if ((skb->mark & MARK_MASK) == MARK_TO_PROXY)
		return passage_end(skb, passage, proxy_turned(skb, passage));
	action = handle_from_pod(skb, passage);
	if (action >= 0 && action != TC_ACT_SHOT)
		metrics_count(0, POLICY_EGRESS, skb->len - passage->packet.grown);
	return passage_end(skb, passage, action);
}

static __always_inline int handle_to_pod(struct __sk_buff *skb, struct passage *passage)
{
	const struct endpoint *source = NULL, *destination;
	struct packet *packet = &passage->packet;
	__be16 ethertype;
	int error;

	if (skb->vlan_present)
		return DROP_VLAN_FILTERED;
	packet_pull(skb);
	ethertype = packet_ethertype(skb);
	if (ethertype == bpf_htons(ETH_P_ARP))
		return TC_ACT_OK;
	error = packet_parse(skb, packet, ethertype);
	if (error)
		return error;
	if (nd_from_node(skb, packet))
		return TC_ACT_OK;
	verdict_begin(skb, passage);
	if (service_is_forged(passage))
		return DROP_INVALID_SOURCE_IP;
	destination = endpoint_recall(&packet->destination, passage->epoch, END_RECEIVER);
	if (!destination || destination->ifindex != skb->ifindex) {
		/* The stack greets every new device with multicast: no news. */
		return address_is_multicast(&packet->destination) ? TC_ACT_SHOT : DROP_UNROUTABLE;
	}
	if (proxy_asked_here(skb, passage))
		return proxy_turn(skb, passage);
	if (passage->host_firewall && !skb->ingress_ifindex && !passage->mark)
		source = host_sender(packet, passage->epoch);
	passage->verdict.endpoint = destination->id;
	error = verdict_take(skb, passage, source, destination);
	if (!error && passage->to_proxy)
		return proxy_turn(skb, passage);
	if (!error && service_is_answer(passage))
		error = service_answer(skb, passage);
	return error ? error : TC_ACT_OK;
}

SEC("tc/to_pod")
int to_pod(struct __sk_buff *skb)
{
	struct passage *passage = passage_begin(POLICY_INGRESS, TRACE_TO_ENDPOINT);
	int action;

	if (!passage)
		return TC_ACT_SHOT;
	action = handle_to_pod(skb, passage);
	if (action >= 0 && action != TC_ACT_SHOT)
		metrics_count(0, POLICY_INGRESS, skb->len);
	return passage_end(skb, passage, action);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
