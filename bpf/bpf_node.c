/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The device to the other nodes: what is for a pod of this node is judged and delivered here,
 * the rest is the stack's, untouched.
 */
#include "lib/deliver.h"
#include "lib/verdict.h"

static __always_inline int handle_from_network(struct __sk_buff *skb, struct passage *passage)
{
	struct packet *packet = &passage->packet;
	const struct endpoint *destination;
	int error, action;
	__u32 device;

	passage->verdict.direction = POLICY_INGRESS;
	packet->flags = PACKET_FROM_NETWORK;
	/* The stack takes the tag off and forwards, and to_pod judges. */
	if (skb->vlan_present)
		return TC_ACT_OK;
	packet_pull(skb);
	error = packet_parse(skb, packet, packet_ethertype(skb));
	verdict_begin(passage);
	destination = endpoint_recall(&packet->destination, passage->epoch);
	if (!destination)
		return TC_ACT_OK;
	device = endpoint_device(destination);
	passage->verdict.endpoint = destination->id;
	if (error)
		return error;

	error = verdict_take(skb, passage, NULL, destination);
	if (error)
		return error;
	action = deliver_local(skb, packet->family, destination, device);
	if (action >= 0)
		metrics_count(0, POLICY_INGRESS, skb->len);
	return action;
}

SEC("tc/from_network")
int from_network(struct __sk_buff *skb)
{
	struct passage passage;
	int action;

	__builtin_memset(&passage.packet, 0, sizeof(passage.packet));
	__builtin_memset(&passage.verdict, 0, sizeof(passage.verdict));
	action = handle_from_network(skb, &passage);
	return action < 0 ? drop(skb, &passage.packet, &passage.verdict, action) : action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
