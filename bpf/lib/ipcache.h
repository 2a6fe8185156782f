/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ipcache: which identity owns an address prefix, and on which node it lives.
 * Written by cirri.datapath.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_xdp.c.
 * Mirror: libs/cirri/layout/ipcache.py
 */
#pragma once
#include "address.h"
#include "map.h"

struct ipcache_key {
	__u32 prefix_len;	/* bits of address; an IPv4 prefix counts 96 more */
	__be32 address[4];	/* union address: but 8-byte alignment would leave a hole */
};

struct ipcache_value {
	__u32 identity;
	__u32 pad;
	union address node;	/* next hop, of the same family; zero: not behind another node */
};

MAP_FLAGS(cirri_ipcache, LPM_TRIE, struct ipcache_key, struct ipcache_value, 1048576, BPF_F_NO_PREALLOC);

enum reserved_identity {	/* the ones that programs know */
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_KUBE_APISERVER = 7,
	IDENTITY_WORLD_IPV4 = 9,
	IDENTITY_WORLD_IPV6 = 10,
};

/* An identity's uppermost byte: of a prefix outside, which each node has numbered for itself. */
#define IDENTITY_SCOPE_WORLD 1
#define IDENTITY_SCOPE_NODE 2	/* of another node with labels of its own */

/* Prefixes outside the cluster have identities of a scope; the rest of outside has none, or a reserved one. */
static __always_inline bool identity_is_outside(__u32 identity)
{
	return !identity || identity == IDENTITY_WORLD || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6 || identity >> 24 == IDENTITY_SCOPE_WORLD;
}

static __always_inline const struct ipcache_value *ipcache_lookup(const union address *address)
{
	struct ipcache_key key;

	key.prefix_len = 128;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&cirri_ipcache, &key);
}

/* Who has *address*: by the longest prefix, else the world. */
static __always_inline __u32 ipcache_identity(const union address *address)
{
	const struct ipcache_value *value = ipcache_lookup(address);

	if (value && value->identity)
		return value->identity;
	return address_is4(address) ? IDENTITY_WORLD_IPV4 : IDENTITY_WORLD_IPV6;
}

/* Next hops found lately: to walk the trie for each packet costs more than all else that is done
 * for a known connection.  Each CPU has its own, so nothing is ever half written.  An answer holds
 * while the epoch does that was read before it was looked up.
 */
struct hop {
	union address address;
	union address node;	/* as in struct ipcache_value */
	__u32 epoch;
	__u32 pad;
};

MAP(cirri_hops, PERCPU_ARRAY, __u32, struct hop, 1024);

/* The node behind which *address* is; zero or NULL: behind none. */
static __always_inline const union address *hop_lookup(const union address *address, __u32 epoch)
{
	__u32 index = bpf_ntohl(address->words[3]) & 1023;
	struct hop *hop = bpf_map_lookup_elem(&cirri_hops, &index);
	const struct ipcache_value *value;

	if (!hop)
		return NULL;
	if (hop->epoch == epoch && address->halves[1] && address_equal(&hop->address, address))
		return &hop->node;
	value = ipcache_lookup(address);
	hop->address = *address;
	hop->epoch = epoch;
	if (value) {
		hop->node = value->node;
	} else {
		hop->node.halves[0] = 0;
		hop->node.halves[1] = 0;
	}
	return &hop->node;
}

/* Is *address* a node's from which tunnels are believed?  In tunnel mode a node, and nothing else, is behind its own
 * address.
 */
static __always_inline bool hop_is_node(const union address *address, __u32 epoch)
{
	const union address *hop = hop_lookup(address, epoch);

	return hop && address_equal(hop, address);
}
