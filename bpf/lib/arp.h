/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* arp: the gateway of every pod is 169.254.1.1, and it answers here. */
#pragma once
#include "endpoint.h"
#include "neighbour.h"
#include "packet.h"

#define GATEWAY4 bpf_htonl(0xa9fe0101)

/* A pod's ARP: requests for the gateway are answered, its own answers reach the node, the rest is dropped. */
GLOBAL int arp_from_pod(struct __sk_buff *skb, struct packet *packet)
{
	const __u32 length = L3_OFFSET + sizeof(struct arp_ethernet4);
	const struct endpoint *endpoint;
	struct arp_ethernet4 *arp;
	struct ethhdr *eth;
	__be32 sender, target;

	if (!packet)
		return DROP_INVALID;
	bpf_skb_pull_data(skb, length);
	eth = (void *)(long)skb->data;
	arp = (void *)(eth + 1);
	if ((void *)(arp + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_size != ETH_ALEN || arp->protocol_size != 4)
		return DROP_INVALID;
	__builtin_memcpy(&sender, arp->sender_ip, 4);
	__builtin_memcpy(&target, arp->target_ip, 4);
	address_set4(&packet->source, sender);
	address_set4(&packet->destination, target);
	endpoint = endpoint_lookup(&packet->source);
	if (!endpoint || endpoint->ifindex != skb->ifindex)
		return DROP_INVALID_SOURCE_IP;
	if (!mac_equal(arp->sender_mac, endpoint->mac) ||
	    !mac_equal(eth->h_source, endpoint->mac))
		return DROP_INVALID_SOURCE_MAC;
	if (arp->operation == bpf_htons(ARP_REPLY))
		return TC_ACT_OK;
	if (arp->operation != bpf_htons(ARP_REQUEST) || target != GATEWAY4)
		return DROP_UNROUTABLE;

	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, endpoint->mac, ETH_ALEN);
	__builtin_memcpy(arp->target_ip, &sender, 4);
	__builtin_memcpy(arp->sender_mac, endpoint->node_mac, ETH_ALEN);
	__builtin_memcpy(arp->sender_ip, &target, 4);
	__builtin_memcpy(eth->h_dest, endpoint->mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, endpoint->node_mac, ETH_ALEN);
	return bpf_redirect(skb->ifindex, 0);
}
