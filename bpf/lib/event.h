/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* events: what happened to connections, for observers.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_rest.c.
 * Read by one process at a time, whoever holds the ring.
 * Mirror: libs/cirri/layout/event.py
 */
#pragma once
#include "address.h"
#include "map.h"

enum event_type {
	EVENT_POLICY_VERDICT = 1,
	EVENT_CONNECTION_CLOSED = 3,
	EVENT_DROP = 4,
	EVENT_TRACE = 5,	/* a packet was forwarded; it stands for others of its connection and direction */
};

/* Where a packet was seen on its way through this node: numbers of Hubble's flow.TraceObservationPoint. */
enum trace_point {
	TRACE_UNKNOWN = 0,
	TRACE_TO_PROXY = 1,
	TRACE_TO_HOST = 2,
	TRACE_TO_STACK = 3,
	TRACE_TO_OVERLAY = 4,
	TRACE_FROM_ENDPOINT = 5,
	TRACE_FROM_PROXY = 6,
	TRACE_FROM_HOST = 7,
	TRACE_FROM_STACK = 8,
	TRACE_FROM_OVERLAY = 9,
	TRACE_FROM_NETWORK = 10,
	TRACE_TO_NETWORK = 11,
	TRACE_TO_ENDPOINT = 101,
};

/* What it was to its connection: numbers of Hubble's flow.TraceReason. */
enum trace_state {
	STATE_UNKNOWN = 0,	/* it is of none that is kept */
	STATE_NEW = 1,
	STATE_ESTABLISHED = 2,
	STATE_REPLY = 3,
	STATE_RELATED = 4,	/* an ICMP error about it */
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
	__u32  length;		/* of the packet, bytes; 0: there was none, see `packets` */
	__u16  endpoint;	/* the local endpoint whose policy was asked, or that the packet left or reached */
	__u8   tcp_flags;
	__u8   match;		/* how the policy entry matched, 0..6 */
	__u8   audited;		/* 1: it passed all the same; `reason` is why it would not have */
	__u8   point;		/* TRACE: enum trace_point */
	__u16  proxy_port;	/* POLICY_VERDICT: the port of this node that it is redirected to, host order; 0: none */
	__u32  ifindex;		/* of the device at which it was met */
	__u8   state;		/* TRACE: enum trace_state */
	__u8   reply;		/* TRACE, CONNECTION_CLOSED: 1: it travels as the connection was opened; 2: against that */
	__u16  pad;
	__u64  packets;		/* of this direction that the event stands for: of DROP 1, of POLICY_VERDICT none */
	__u64  bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);	/* bytes: a fifth of a second of 200,000 events in each, which a reader may be kept waiting */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cirri_events SEC(".maps");

enum event_counter {
	EVENTS_SUBMITTED = 0,
	EVENTS_LOST = 1,	/* for which there was no room */
	EVENTS_FORGONE_PACKETS = 2,	/* that no event will stand for any more, for the same reason */
	EVENTS_FORGONE_BYTES = 3,
	EVENT_COUNTERS = 4,
};

MAP(cirri_event_counters, PERCPU_ARRAY, __u32, __u64, EVENT_COUNTERS);

static __always_inline void event_count(__u32 counter, __u64 by)
{
	__u64 *count = bpf_map_lookup_elem(&cirri_event_counters, &counter);

	if (count)
		*count += by;
}

static __always_inline void event_forgo(__u64 packets, __u64 bytes)
{
	event_count(EVENTS_FORGONE_PACKETS, packets);
	event_count(EVENTS_FORGONE_BYTES, bytes);
}

/* Readers poll (100 ms is enough for people) and are woken only while the ring passes a sixteenth
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
