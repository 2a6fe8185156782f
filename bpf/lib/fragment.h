/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* fragments: the ports that a datagram's first fragment carried.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Mirror: libs/cirri/layout/fragment.py
 */
#pragma once
#include "address.h"
#include "map.h"
#include "packet.h"

struct fragment_key {
	union address source;
	union address destination;
	__be32 id;
	__u8   protocol;
	__u8   pad[3];
};

struct fragment_value {
	__be16 source_port;	/* ICMP: identifier and type, as in struct packet */
	__be16 destination_port;
};

MAP(cirri_fragments, LRU_HASH, struct fragment_key, struct fragment_value, 8192);

/* Remembers the ports of a first fragment; gives a later one the ports of its first.
 * To be called once the source is known to be true, or anybody could name another's ports.
 */
GLOBAL int fragment_resolve(struct packet *packet)
{
	struct fragment_value ports, *found;
	struct fragment_key key = {};

	if (!packet)
		return DROP_INVALID;
	key.source = packet->source;
	key.destination = packet->destination;
	key.id = packet->fragment;
	key.protocol = packet->protocol;
	if (packet->flags & PACKET_FIRST_FRAGMENT) {
		ports.source_port = packet->source_port;
		ports.destination_port = packet->destination_port;
		bpf_map_update_elem(&cirri_fragments, &key, &ports, BPF_ANY);
		return 0;
	}
	found = bpf_map_lookup_elem(&cirri_fragments, &key);
	if (!found)
		return DROP_FRAGMENT_NOT_FOUND;
	packet->source_port = found->source_port;
	packet->destination_port = found->destination_port;
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) {
		__u8 type = bpf_ntohs(found->destination_port);

		if (icmp_request_type(packet->protocol, type) != type)
			packet->flags |= PACKET_ICMP_REPLY;
	}
	return 0;
}
