/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* nexthop: the hardware addresses by which the uplink reaches an address, remembered for a moment: to ask the
 * kernel for each packet costs more than all else that XDP does.  Each CPU has its own, so nothing is half written.
 * Written by bpf_xdp.c.  Read by bpf_xdp.c.
 * Mirror: libs/cirri/layout/nexthop.py
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include "address.h"
#include "map.h"
#include "route.h"

#define NEXTHOP_NS 1000000000ull	/* an answer holds so long */

struct nexthop {
	union address address;
	__u64 expires;		/* ns, CLOCK_MONOTONIC */
	__u8  to[ETH_ALEN];
	__u8  source[ETH_ALEN];
	__u32 pad;
};

MAP(cirri_nexthops, PERCPU_ARRAY, __u32, struct nexthop, 4096);

/* How a packet of *from* goes to *to* by the device that it came by; NULL: not by that one, or the kernel does not
 * know (yet).
 */
static __always_inline const struct nexthop *nexthop_lookup(struct xdp_md *ctx, const union address *from,
							    const union address *to, __u8 family, __u64 now)
{
	__u32 index = (bpf_ntohl(to->words[3]) ^ bpf_ntohl(to->words[3]) >> 12) & 4095;
	struct nexthop *known = bpf_map_lookup_elem(&cirri_nexthops, &index);
	struct bpf_fib_lookup way = {};

	if (!known)
		return NULL;
	if (known->expires >= now && address_equal(&known->address, to))
		return known;
	route_ask(&way, from, to, family, ctx->ingress_ifindex);
	if (bpf_fib_lookup(ctx, &way, sizeof(way), 0) != BPF_FIB_LKUP_RET_SUCCESS ||
	    way.ifindex != ctx->ingress_ifindex)
		return NULL;
	known->address = *to;
	__builtin_memcpy(known->to, way.dmac, sizeof(known->to));
	__builtin_memcpy(known->source, way.smac, sizeof(known->source));
	known->expires = now + NEXTHOP_NS;
	return known;
}
