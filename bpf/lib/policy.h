/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* policy: which peers a set of endpoints may talk to.
 * Endpoints of one identity share one policy_id.  A change of rules is written under
 * a fresh policy_id and switched by the endpoint's entry, so no packet meets a mixture.
 * Written by cirri.datapath (packets and bytes by bpf_pod.c, bpf_node.c).  Read by bpf_pod.c, bpf_node.c.
 * Mirror: libs/cirri/layout/policy.py
 */
#pragma once
#include "map.h"

enum policy_direction {
	POLICY_INGRESS = 1,
	POLICY_EGRESS = 2,
};

/* Longest match over policy_id, identity, direction, protocol, port, in this order:
 * 72 bits match a peer on any protocol, 80 a protocol, 81..96 a block of ports.
 */
struct policy_key {
	__u32  prefix_len;
	__u32  policy_id;
	__u32  identity;	/* of the peer; 0: any peer */
	__u8   direction;	/* enum policy_direction */
	__u8   protocol;	/* IANA number */
	__be16 port;		/* destination port, or ICMP type in the low byte */
};

#define POLICY_PREFIX_PEER	72
#define POLICY_PREFIX_PROTOCOL	80
#define POLICY_PREFIX_PORT	96

struct policy_value {
	__u32 rule;		/* provenance: which rule of which object wrote this entry */
	__u16 proxy_port;	/* host order; 0: no proxy */
	__u8  deny;
	__u8  priority;		/* of the redirect; larger wins */
	__u64 packets;		/* verdicts given by this entry */
	__u64 bytes;
};

MAP_FLAGS(cirri_policy, LPM_TRIE, struct policy_key, struct policy_value, 262144, BPF_F_NO_PREALLOC);

enum policy_match {	/* what a verdict rested on, as observers are told */
	MATCH_NONE = 0,
	MATCH_IDENTITY = 1,
	MATCH_IDENTITY_PORT = 2,
	MATCH_PORT = 3,
	MATCH_ALL = 4,
	MATCH_IDENTITY_PROTOCOL = 5,
	MATCH_PROTOCOL = 6,
};

/* Bits by which *value* was found for *key*.  The kernel does not tell, so shorter keys are tried;
 * most entries name a port, which the first try shows.
 */
static __always_inline __u32 policy_prefix(struct policy_key *key, const struct policy_value *value)
{
	key->prefix_len = POLICY_PREFIX_PROTOCOL;
	if (bpf_map_lookup_elem(&cirri_policy, key) != value)
		return POLICY_PREFIX_PORT;
	key->prefix_len = POLICY_PREFIX_PEER;
	if (bpf_map_lookup_elem(&cirri_policy, key) != value)
		return POLICY_PREFIX_PROTOCOL;
	return POLICY_PREFIX_PEER;
}

/* Is the prefix that found *any* (for any peer) longer than the one that found *specific*? */
static __always_inline bool policy_any_is_longer(const struct policy_key *asked, const struct policy_value *specific,
					    const struct policy_value *any)
{
	struct policy_key key = *asked;
	__u32 bits;

	for (bits = POLICY_PREFIX_PEER; bits < POLICY_PREFIX_PORT; bits++) {
		key.prefix_len = bits;
		key.identity = 0;
		if (bpf_map_lookup_elem(&cirri_policy, &key) == any)
			return false;
		key.identity = asked->identity;
		if (bpf_map_lookup_elem(&cirri_policy, &key) == specific)
			return true;
	}
	return false;
}
