/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* names: which names an endpoint learnt an address under, as far as its policy speaks of names.
 * Written by cirri.dnsproxy.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Mirror: libs/cirri/layout/names.py
 */
#pragma once
#include "address.h"
#include "map.h"
#include "packet.h"

struct name_key {
	__u32 endpoint;		/* struct endpoint.id */
	__be32 address[4];	/* union address: but 8-byte alignment would leave a hole */
};

/* To the number of a set of names, which stands for a peer in cirri_policy (uppermost byte: 3). */
MAP_FLAGS(cirri_names, HASH, struct name_key, __u32, 262144, BPF_F_NO_PREALLOC);

/* The number under which *endpoint* knows *address*; 0: under no name that matters. */
GLOBAL int names_lookup(__u32 endpoint, const union address *address)
{
	struct name_key key;
	const __u32 *number;

	if (!address)
		return 0;
	key.endpoint = endpoint;
	__builtin_memcpy(key.address, address, sizeof(key.address));
	number = bpf_map_lookup_elem(&cirri_names, &key);
	return number ? *number : 0;
}
