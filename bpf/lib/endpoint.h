/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* endpoints: the pods of this node and the node itself, by address.  The node is under each address of
 * its own that is known, and under the zero address for all that it has besides.
 * Written by cirri.datapath.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Mirror: libs/cirri/layout/endpoint.py
 */
#pragma once
#include "address.h"
#include "map.h"

enum endpoint_flag {
	ENDPOINT_ENFORCE_INGRESS = 1,	/* default deny on the way in */
	ENDPOINT_ENFORCE_EGRESS = 2,	/* default deny on the way out */
	ENDPOINT_AUDIT = 4,		/* what its policy would drop passes, and is reported */
	ENDPOINT_HOST = 8,		/* the node itself, under one of its own addresses */
	ENDPOINT_AUDIT_INGRESS = 16,	/* default deny on the way in, of the set under audit_policy_id */
	ENDPOINT_AUDIT_EGRESS = 32,
	ENDPOINT_NAMES = 64,		/* its egress policy speaks of names, see lib/names.h */
};

struct endpoint {
	__u32 ifindex;		/* of the device on the node's side; of the node: its uplink */
	__u32 identity;
	__u32 policy_id;	/* which set of entries in cirri_policy holds for it */
	__u32 audit_policy_id;	/* the set that is tried out on it, whole; 0: none */
	__u16 id;		/* as `cirri endpoint list` shows it */
	__u16 flags;		/* enum endpoint_flag */
	__u8  mac[6];		/* of the pod's eth0 */
	__u8  node_mac[6];	/* of the device on the node's side */
};

MAP(cirri_endpoints, HASH, union address, struct endpoint, 65536);

static __always_inline const struct endpoint *endpoint_lookup(const union address *address)
{
	union address key = *address;	/* an argument is no key, see bpf/README.md */

	return bpf_map_lookup_elem(&cirri_endpoints, &key);
}

/* Endpoints found lately: to hash the addresses of each packet costs more than anything else that is
 * done for a known connection.  Each CPU has its own, so nothing is ever half written.  An answer
 * holds while the epoch does that was read before it was looked up.  One without a device is the
 * answer that nobody has the address; an endpoint that still waits for its device is not remembered,
 * since it gets it without a new epoch.
 */
struct endpoint_memo {
	union address address;
	struct endpoint endpoint;
	__u32 epoch;
	__u32 pad;
};

MAP(cirri_endpoint_memos, PERCPU_ARRAY, __u32, struct endpoint_memo, 2048);

/* Which end of a packet: the first of its places. */
#define END_SENDER	0
#define END_RECEIVER	1024

/* Pods of a node have neighbouring addresses: the low bits tell them apart, and the family.  A packet's
 * two ends have a half of the places each: what was found for one must not be overwritten by the other,
 * whose address may have the same low bits.
 */
static __always_inline const struct endpoint *endpoint_recall(const union address *address, __u32 epoch,
							      __u32 end)
{
	__u32 index = (bpf_ntohl(address->words[3]) & 511) | (address->words[2] == ADDRESS_MAPPED ? 0 : 512) | end;
	struct endpoint_memo *memo = bpf_map_lookup_elem(&cirri_endpoint_memos, &index);
	const struct endpoint *endpoint;

	if (memo && memo->epoch == epoch && address->halves[1] && address_equal(&memo->address, address))
		return memo->endpoint.ifindex ? &memo->endpoint : NULL;
	/* No packet comes from or goes to the zero address, under which the node is. */
	if (address_is_zero(address))
		return NULL;
	endpoint = endpoint_lookup(address);
	if (memo && (!endpoint || endpoint->ifindex)) {
		if (endpoint)
			memo->endpoint = *endpoint;
		else
			memo->endpoint.ifindex = 0;
		memo->address = *address;
		memo->epoch = epoch;
	}
	return endpoint;
}

/* Its device at this moment: the service may write it at any. */
static __always_inline __u32 endpoint_device(const struct endpoint *endpoint)
{
	return endpoint ? *(const volatile __u32 *)&endpoint->ifindex : 0;
}
