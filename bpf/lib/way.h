/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* way: by which next hop of the uplink a node is reached, remembered for a moment: to ask the routing table for each
 * packet costs more than to make the head of a tunnel's.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Mirror: libs/cirri/layout/way.py
 */
#pragma once
#include "address.h"
#include "map.h"
#include "route.h"
#include "runtime.h"

#define WAY_NS 1000000000ull	/* an answer holds so long */

struct way {
	__be32 node;
	__be32 next;		/* 0: there is none */
	__u64  expires;		/* ns, CLOCK_MONOTONIC */
};

MAP(cirri_ways, PERCPU_ARRAY, __u32, struct way, 1024);

/* The next hop to *node*, both IPv4; 0: it is not reached by the uplink, or not over IPv4. */
GLOBAL int way_to(struct __sk_buff *skb, const union address *node)
{
	const struct runtime *runtime = runtime_get();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct bpf_fib_lookup route = {};
	struct way *way;
	__u32 index;
	long result;

	if (!node || !runtime)
		return 0;
	index = bpf_ntohl(node->words[3]) & 1023;
	way = bpf_map_lookup_elem(&cirri_ways, &index);
	if (!way)
		return 0;
	if (way->node == node->words[3] && way->expires >= now)
		return way->next;
	route_ask(&route, &runtime->nat4, node, 4, skb->ifindex);
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	way->next = route_is_there(result) && route.family == AF_INET && route.ifindex == runtime->uplink_ifindex
			    ? route.ipv4_dst : 0;
	way->node = node->words[3];
	way->expires = now + WAY_NS;
	return way->next;
}
