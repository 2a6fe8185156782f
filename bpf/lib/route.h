/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* route: what the node's routing table is asked, and says. */
#pragma once
#include "packet.h"

/* How a packet of *from*, which came by *device* or is to leave by it, goes to *to*. */
static __always_inline void route_ask(struct bpf_fib_lookup *route, const union address *from, const union address *to,
				      __u8 family, __u32 device)
{
	route->ifindex = device;
	if (family == 4) {
		route->family = AF_INET;
		route->ipv4_src = from->words[3];
		route->ipv4_dst = to->words[3];
	} else {
		route->family = AF_INET6;
		__builtin_memcpy(route->ipv6_src, from, sizeof(route->ipv6_src));
		__builtin_memcpy(route->ipv6_dst, to, sizeof(route->ipv6_dst));
	}
}

/* Is there a way, be its next hop's MAC address known or not? */
static __always_inline bool route_is_there(long result)
{
	return result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* The next hop that *route* names. */
static __always_inline void route_next(struct bpf_redir_neigh *next, const struct bpf_fib_lookup *route)
{
	next->nh_family = route->family;
	__builtin_memcpy(next->ipv6_nh, route->ipv6_dst, sizeof(next->ipv6_nh));	/* IPv4 lies at its beginning */
}
