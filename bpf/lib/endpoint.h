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

static __always_inline struct endpoint *endpoint_lookup(const union address *address)
{
	return bpf_map_lookup_elem(&cirri_endpoints, address);
}
