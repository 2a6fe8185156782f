/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* endpoints: the pods of this node, by address.
 * Written by cirri.datapath.  Read by bpf_pod.c, bpf_node.c.
 * Mirror: libs/cirri/layout/endpoint.py
 */
#pragma once
#include "address.h"
#include "map.h"

enum endpoint_flag {
	ENDPOINT_ENFORCE_INGRESS = 1,	/* default deny on the way in */
	ENDPOINT_ENFORCE_EGRESS = 2,	/* default deny on the way out */
};

struct endpoint {
	__u32 ifindex;		/* of the device on the node's side */
	__u32 identity;
	__u32 policy_id;	/* which set of entries in cirri_policy holds for it */
	__u16 id;		/* as `cirri endpoint list` shows it */
	__u16 flags;		/* enum endpoint_flag */
	__u8  mac[6];		/* of the pod's eth0 */
	__u8  node_mac[6];	/* of the device on the node's side */
};

MAP(cirri_endpoints, HASH, union address, struct endpoint, 65536);

/* A front to cirri_endpoints: to hash the addresses of each packet costs more than anything else
 * that is done for a known connection.  A slot holds one of the endpoints whose addresses lead to it, or
 * none; the map above stays the truth, and is asked whenever the slot is about another address.
 * A slot changes its endpoint only while its address is zero, so no packet meets a mixture.
 */
struct endpoint_slot {
	union address address;	/* zero: empty */
	struct endpoint endpoint;
	__u32 pad;
};

MAP(cirri_endpoint_slots, ARRAY, __u32, struct endpoint_slot, 4096);

#define ENDPOINT_SLOTS 4096

/* Pods of a node have neighbouring addresses: the low bits tell them apart, and the family. */
static __always_inline __u32 endpoint_slot_of(const union address *address)
{
	return (bpf_ntohl(address->words[3]) & (ENDPOINT_SLOTS / 2 - 1)) |
	       (address->words[2] == ADDRESS_MAPPED ? 0 : ENDPOINT_SLOTS / 2);
}

static __always_inline const struct endpoint *endpoint_lookup(const union address *address)
{
	__u32 index = endpoint_slot_of(address);
	const struct endpoint_slot *slot = bpf_map_lookup_elem(&cirri_endpoint_slots, &index);

	if (slot && address->halves[1] && address_equal(&slot->address, address))
		return &slot->endpoint;
	return bpf_map_lookup_elem(&cirri_endpoints, address);
}
