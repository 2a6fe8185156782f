/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* nd: the IPv6 gateway of every pod is fe80::1; its neighbour discovery is answered here (RFC 4861). */
#pragma once
#include "endpoint.h"
#include "neighbour.h"
#include "packet.h"

static __always_inline bool address_is_gateway6(const union address *address)
{
	return address->words[0] == bpf_htonl(0xfe800000) && address->words[1] == 0 &&
	       address->words[2] == 0 && address->words[3] == bpf_htonl(1);
}

/* What a pod says about its link: solicitations for the gateway are answered, its own
 * advertisements reach the node, forgeries are dropped.
 */
GLOBAL int nd_from_pod(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 source_mac[ETH_ALEN], destination_mac[ETH_ALEN], hop_limit, type;
	const struct endpoint *endpoint;
	struct nd_message nd = {};
	bool has_option;

	if (!packet)
		return DROP_INVALID;
	type = bpf_ntohs(packet->destination_port);
	/* Listener reports and router solicitations: nobody here has an answer, and every start of a
	 * pod sends some, so that they are no news either.
	 */
	if (type == ND_ROUTER_SOLICITATION || type < ND_ROUTER_SOLICITATION || type == 143)
		return TC_ACT_SHOT;
	if (type != ND_NEIGHBOUR_SOLICITATION && type != ND_NEIGHBOUR_ADVERTISEMENT)
		return DROP_FORBIDDEN_ICMP6;
	if (bpf_skb_load_bytes(skb, L3_OFFSET + __builtin_offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1) ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &nd, 24))
		return DROP_INVALID;
	if (hop_limit != ND_HOP_LIMIT || nd.code || packet->l4_offset != L3_OFFSET + sizeof(struct ipv6hdr))
		return DROP_INVALID;
	if (bpf_skb_load_bytes(skb, 0, destination_mac, ETH_ALEN) ||
	    bpf_skb_load_bytes(skb, ETH_ALEN, source_mac, ETH_ALEN))
		return DROP_INVALID;
	has_option = !bpf_skb_load_bytes(skb, packet->l4_offset + 24, &nd.option, 8);

	/* Duplicate address detection: the address is the pod's alone, silence is the right answer. */
	if (address_is_zero(&packet->source))
		return type == ND_NEIGHBOUR_SOLICITATION ? TC_ACT_SHOT : DROP_INVALID_SOURCE_IP;
	/* A link-local source says nothing about the pod; its MAC address has to fit by itself. */
	endpoint = endpoint_lookup(&packet->source);
	if (endpoint ? endpoint->ifindex != skb->ifindex : !address_is_link_local6(&packet->source))
		return DROP_INVALID_SOURCE_IP;
	if (endpoint && !mac_equal(source_mac, endpoint->mac))
		return DROP_INVALID_SOURCE_MAC;
	if (has_option && (nd.option == ND_OPTION_SOURCE || nd.option == ND_OPTION_TARGET) &&
	    !mac_equal(nd.mac, source_mac))
		return DROP_INVALID_SOURCE_MAC;

	if (type == ND_NEIGHBOUR_ADVERTISEMENT) {
		const struct endpoint *own = endpoint_lookup(&nd.target);

		if (!own || own->ifindex != skb->ifindex)
			return DROP_INVALID_SOURCE_IP;
		return !mac_equal(source_mac, own->mac) ? DROP_INVALID_SOURCE_MAC : TC_ACT_OK;
	}
	if (!address_is_gateway6(&nd.target))
		return DROP_UNROUTABLE;
	if (endpoint)
		return nd_answer(skb, &packet->source, endpoint->node_mac, source_mac, ND_SOLICITED_OVERRIDE);
	/* Reachability is probed from a link-local source, to the MAC address it is about.  To ask for
	 * that address itself a source known to be the pod's is needed.
	 */
	if (destination_mac[0] & 1)
		return TC_ACT_SHOT;
	return nd_answer(skb, &packet->source, destination_mac, source_mac, ND_SOLICITED_OVERRIDE);
}

/* From the node's stack: only what was sent on this link is about this link. */
static __always_inline bool nd_from_node(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 hop_limit = 0;

	if (!(packet->flags & PACKET_NEIGHBOUR))
		return false;
	bpf_skb_load_bytes(skb, L3_OFFSET + __builtin_offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1);
	return hop_limit == ND_HOP_LIMIT;
}
