/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* events: what happened to connections, for observers.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c.
 * Read by one process at a time, whoever holds the ring.
 * Mirror: libs/cirri/layout/event.py
 */
#pragma once
#include "address.h"
#include "map.h"

enum event_type {
	EVENT_POLICY_VERDICT = 1,
	EVENT_CONNECTION_NEW = 2,
	EVENT_CONNECTION_CLOSED = 3,
	EVENT_DROP = 4,
};

struct event {
	__u64  timestamp;	/* ns, CLOCK_MONOTONIC */
	union address source;
	union address destination;
	__u32  source_identity;
	__u32  destination_identity;
	__be16 source_port;	/* ICMP: the identifier */
	__be16 destination_port;	/* ICMP: the type */
	__u8   type;		/* enum event_type */
	__u8   protocol;
	__u8   direction;	/* enum policy_direction; 0: neither */
	__u8   reason;		/* drop reason 130..255; 0: forwarded or allowed */
	__u32  rule;		/* provenance of a verdict */
	__u32  length;		/* of the packet, bytes */
	__u16  endpoint;	/* the local endpoint whose policy was asked, or that the packet left */
	__u8   tcp_flags;
	__u8   match;		/* how the policy entry matched, 0..6 */
	__u8   audited;		/* 1: it passed all the same; `reason` is why it would not have */
	__u8   pad;
	__u16  proxy_port;	/* POLICY_VERDICT: the port of this node that it is redirected to, host order; 0: none */
	__u64  packets;		/* CONNECTION_CLOSED: both directions together */
	__u64  bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);	/* bytes */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cirri_events SEC(".maps");

enum event_counter {
	EVENTS_SUBMITTED = 0,
	EVENTS_LOST = 1,
	EVENT_COUNTERS = 2,
};

MAP(cirri_event_counters, PERCPU_ARRAY, __u32, __u64, EVENT_COUNTERS);

static __always_inline void event_count(__u32 counter)
{
	__u64 *count = bpf_map_lookup_elem(&cirri_event_counters, &counter);

	if (count)
		(*count)++;
}

/* Readers poll (100 ms is enough for people) and are woken only while the ring passes a quarter
 * of its size: a wake-up costs more than the packet it reports.
 */
#define EVENTS_WAKE_FROM	(1 << 18)
#define EVENTS_WAKE_TO		(EVENTS_WAKE_FROM + 4096)

static __always_inline __u64 event_wakeup(void)
{
	__u64 waiting = bpf_ringbuf_query(&cirri_events, BPF_RB_AVAIL_DATA);

	return waiting >= EVENTS_WAKE_FROM && waiting < EVENTS_WAKE_TO ? BPF_RB_FORCE_WAKEUP
								       : BPF_RB_NO_WAKEUP;
}
