/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* report: tell observers what happened to a packet, and count it. */
#pragma once
#include "event.h"
#include "metrics.h"
#include "packet.h"

/* What is known of the verdict on a packet. */
struct verdict {
	__u32 source_identity;
	__u32 destination_identity;
	__u32 egress_rule;
	__u32 ingress_rule;
	__u32 rule;		/* of the direction asked last */
	__u16 endpoint;		/* whose policy was asked, or that the packet left */
	__u8  direction;	/* enum policy_direction */
	__u8  match;		/* how the entry matched, enum policy_match */
	__u8  audited;		/* directions (enum policy_direction, as bits) in which only audit lets it pass */
	__u8  told;		/* those of them that observers know of */
	__u16 proxy_port;	/* of this node: the entry that lets it pass has it go there; host order, 0: nowhere */
	__u32 names;		/* the destination's number in lib/names.h, of who is asked; 0: none */
	__u8  point;		/* of what passed: enum trace_point */
	__u8  state;		/* enum trace_state */
	__u8  reply;		/* as in struct event */
	__u64 packets;		/* that an event stands for */
	__u64 bytes;
};

GLOBAL int report(struct __sk_buff *skb, const struct packet *packet,
			     const struct verdict *verdict, __u32 type, __u32 reason)
{
	struct event *event;

	if (!packet || !verdict)
		return 0;
	event = bpf_ringbuf_reserve(&cirri_events, sizeof(*event), 0);
	if (!event) {
		event_count(EVENTS_LOST);
		return 0;
	}
	event->timestamp = bpf_ktime_get_ns();
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_identity = verdict->source_identity;
	event->destination_identity = verdict->destination_identity;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->type = type;
	event->protocol = packet->protocol;
	event->direction = type == EVENT_POLICY_VERDICT || type == EVENT_DROP ? verdict->direction : 0;
	event->reason = reason;
	event->rule = verdict->rule;
	event->length = skb->len;
	event->endpoint = verdict->endpoint;
	event->tcp_flags = packet->tcp_flags;
	event->match = verdict->match;
	event->audited = type == EVENT_POLICY_VERDICT && (verdict->audited & verdict->direction);
	event->point = type == EVENT_TRACE ? verdict->point : TRACE_UNKNOWN;
	event->proxy_port = type == EVENT_POLICY_VERDICT && !reason ? verdict->proxy_port : 0;
	event->ifindex = skb->ifindex;
	event->state = type == EVENT_TRACE ? verdict->state : STATE_UNKNOWN;
	event->reply = type == EVENT_TRACE || type == EVENT_CONNECTION_CLOSED ? verdict->reply : 0;
	event->pad = 0;
	event->packets = type == EVENT_DROP ? 1 : type == EVENT_POLICY_VERDICT ? 0 : verdict->packets;
	event->bytes = type == EVENT_DROP ? skb->len : type == EVENT_POLICY_VERDICT ? 0 : verdict->bytes;
	bpf_ringbuf_submit(event, event_wakeup());
	event_count(EVENTS_SUBMITTED);
	return 0;
}

/* Ends a packet for *error*, a negative drop reason. */
GLOBAL int drop(struct __sk_buff *skb, const struct packet *packet,
			   const struct verdict *verdict, int error)
{
	__u8 reason = -error;

	if (!packet || !verdict)
		return TC_ACT_SHOT;
	report(skb, packet, verdict, EVENT_DROP, reason);
	metrics_count(reason, verdict->direction & 3, skb->len);
	return TC_ACT_SHOT;
}
