/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* policy: which peers a set of endpoints may talk to.
 * Endpoints of one identity share one policy_id.  A change of rules is written under
 * a fresh policy_id and switched by the endpoint's entry, so no packet meets a mixture.
 * Written by cirri.datapath (packets and bytes by bpf_pod.c, bpf_node.c, bpf_overlay.c).
 * Read by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Mirror: libs/cirri/layout/policy.py
 */
#pragma once
#include <linux/in.h>
#include "drop.h"
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

enum policy_action {
	ACTION_ALLOW = 0,
	ACTION_DENY = 1,
	ACTION_AUTH = 2,	/* allowed once both ends have proved who they are */
};

struct policy_value {
	__u32 rule;		/* provenance: which rule of which object wrote this entry */
	__u16 proxy_port;	/* host order; 0: no proxy */
	__u8  action;		/* enum policy_action */
	__u8  priority;		/* of the redirect; larger wins */
	__u64 packets;		/* verdicts given by this entry */
	__u64 bytes;
};

/* What an entry does with a packet of *protocol*: 0, or a drop reason.  What may pass through a proxy may not pass
 * without, and there is none while *proxies* is false or the entry names no port.
 */
static __always_inline int policy_act(const struct policy_value *value, __u8 protocol, bool proxies)
{
	switch (value->action) {
	case ACTION_ALLOW:
		if (!value->priority && !value->proxy_port)
			return 0;
		return proxies && value->proxy_port && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
			       ? 0 : DROP_PROXY_UNKNOWN_PROTO;
	case ACTION_AUTH:
		return DROP_POLICY_AUTH_REQUIRED;
	}
	return DROP_POLICY_DENY;
}

MAP_FLAGS(cirri_policy, LPM_TRIE, struct policy_key, struct policy_value, 1048576, BPF_F_NO_PREALLOC);

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

/* Is the prefix that found *longer* under the identity *its* longer than the one that found *value* under *own*? */
static __always_inline bool policy_is_longer(struct policy_key *key, __u32 its, const struct policy_value *longer,
					     __u32 own, const struct policy_value *value)
{
	__u32 bits;

	for (bits = POLICY_PREFIX_PEER; bits < POLICY_PREFIX_PORT; bits++) {
		key->prefix_len = bits;
		key->identity = its;
		if (bpf_map_lookup_elem(&cirri_policy, key) == longer)
			return false;
		key->identity = own;
		if (bpf_map_lookup_elem(&cirri_policy, key) == value)
			return true;
	}
	return false;
}

/* How answers were found lately: to walk the trie from new costs a new connection more than all
 * else.  Each CPU has its own.  One holds while the epoch does that was read before it was found.
 */
enum policy_side {
	SIDE_NONE = 0,		/* no entry is about it */
	SIDE_PEER = 1,		/* one that names the peer decides */
	SIDE_ANY = 2,
};

struct policy_memo {
	__u32  policy_id;	/* what was asked, as in struct policy_key */
	__u32  identity;
	__u8   direction;
	__u8   protocol;
	__be16 port;
	__u32  epoch;
	__u8   decides;		/* enum policy_side */
	__u8   match;		/* enum policy_match */
	__u16  pad;
};

MAP(cirri_policy_memos, PERCPU_ARRAY, __u32, struct policy_memo, 1024);

/* Where the answer for *key* is remembered, if it is. */
static __always_inline struct policy_memo *policy_memo_of(const struct policy_key *key)
{
	__u32 last = key->port | (__u32)key->protocol << 16 | (__u32)key->direction << 24;
	__u32 index = (key->policy_id * 0x9e3779b1 ^ key->identity * 0x85ebca6b ^ last * 0xc2b2ae35) >> 22;

	return bpf_map_lookup_elem(&cirri_policy_memos, &index);
}

static __always_inline bool policy_memo_holds(const struct policy_memo *memo, const struct policy_key *key,
					      __u32 epoch)
{
	return memo->policy_id == key->policy_id && memo->identity == key->identity &&
	       memo->direction == key->direction && memo->protocol == key->protocol &&
	       memo->port == key->port && memo->epoch == epoch;
}

/* Which of the entries about *key* decides, and how it matched.  All lookups share the one key, since
 * the stack of a call chain is short: its identity and prefix are of no use afterwards.
 */
static __always_inline int policy_choose(struct policy_key *key, __u8 *decides)
{
	struct policy_value *specific, *any, *chosen;
	__u32 bits, peer = key->identity;
	bool named;

	specific = bpf_map_lookup_elem(&cirri_policy, key);
	key->identity = 0;
	any = bpf_map_lookup_elem(&cirri_policy, key);
	if (specific && specific->action == ACTION_DENY)
		chosen = specific;
	else if (any && (!specific || any->action == ACTION_DENY))
		chosen = any;
	else if (any && any->priority != specific->priority)
		chosen = any->priority > specific->priority ? any : specific;
	else if (any)
		chosen = policy_is_longer(key, 0, any, peer, specific) ? any : specific;
	else
		chosen = specific;

	*decides = SIDE_NONE;
	if (!chosen)
		return MATCH_NONE;
	named = chosen == specific;
	*decides = named ? SIDE_PEER : SIDE_ANY;
	key->identity = named ? peer : 0;
	bits = policy_prefix(key, chosen);
	if (bits == POLICY_PREFIX_PORT)
		return named ? MATCH_IDENTITY_PORT : MATCH_PORT;
	if (bits == POLICY_PREFIX_PROTOCOL)
		return named ? MATCH_IDENTITY_PROTOCOL : MATCH_PROTOCOL;
	return named ? MATCH_IDENTITY : MATCH_ALL;
}
