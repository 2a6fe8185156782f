/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* passage: a packet on its way through a program. */
#pragma once
#include "conntrack.h"
#include "mark.h"
#include "packet.h"
#include "report.h"
#include "runtime.h"

/* When observers are told of a packet of a known connection, from struct runtime. */
struct tracing {
	__u32 interval;		/* ticks after the last time in its direction; 0: never for that */
	__u8  flags;		/* TCP flags at once that were not told in its direction */
	__u8  each;		/* any packet */
};

struct passage {
	struct packet packet;
	struct verdict verdict;
	struct ct_key key;
	__u64 now;		/* ns, CLOCK_MONOTONIC, coarse */
	__u32 epoch;		/* read before the endpoints were looked up: what is found now is stored under it */
	__u32 latest;		/* read after: what was stored under another one is judged again */
	__u16 high;		/* the source is the end stored as `high` in key */
	__u16 reply;		/* it travels against the packet that opened its connection */
	__u16 host_firewall;	/* the node is an endpoint */
	__u32 frontend;		/* of the connection: struct ct_value.frontend */
	__u32 switches;		/* struct runtime.flags */
	__u16 mark;		/* enum mark, of the side of a proxy that sent it; 0: none did */
	__u8  to_proxy;		/* it is the node's stack's, for a proxy */
	__u8  ended;		/* an entry under key is of a connection before */
	__u32 proxy_port;	/* at which that proxy listens; 0: a socket has the connection */
	struct tracing tracing;
	__u32 length;		/* as it was counted */
	__u8  where;		/* enum trace_point, of the program: see passage_begin() */
	__u8  tell;		/* enum tell: what observers are to hear in the end, of `sight` */
	__u8  counted;		/* in conntrack, under key */
	__u8  related;		/* an ICMP error about a known connection */
	struct event sight;	/* what they hear, as far as it is known */
};

SCRATCH(cirri_passage, struct passage);

/* For a packet that an entry point met in *direction* and knows nothing of yet; NULL: never, but the verifier asks.
 * *where*: what the program meets comes from there, or goes to there.
 */
static __always_inline struct passage *passage_begin(__u8 direction, __u8 where)
{
	__u32 zero = 0;
	struct passage *passage = bpf_map_lookup_elem(&cirri_passage, &zero);

	if (!passage)
		return NULL;
	__builtin_memset(&passage->packet, 0, sizeof(passage->packet));
	__builtin_memset(&passage->verdict, 0, sizeof(passage->verdict));
	passage->verdict.direction = direction;
	passage->where = where;
	passage->tell = 0;
	passage->counted = 0;
	passage->related = 0;
	return passage;
}
