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
	__u32 length;		/* of what is dropped, as it was met; 0: as it is */
};

/* Tells a verdict on *packet*, or that it is dropped. */
GLOBAL int report(struct __sk_buff *skb, const struct packet *packet,
			     const struct verdict *verdict, __u32 type, __u32 reason)
{
	bool is_drop = type == EVENT_DROP;
	struct event *event;
	__u32 length;

	if (!packet || !verdict)
		return 0;
	length = verdict->length ? verdict->length : skb->len;
	event = bpf_ringbuf_reserve(&cirri_events, sizeof(*event), 0);
	if (!event) {
		event_count(EVENTS_LOST, 1);
		if (is_drop)
			event_forgo(1, length);
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
	event->direction = verdict->direction;
	event->reason = reason;
	event->rule = verdict->rule;
	event->length = length;
	event->endpoint = verdict->endpoint;
	event->tcp_flags = packet->tcp_flags;
	event->match = verdict->match;
	event->audited = !is_drop && verdict->audited & verdict->direction;
	event->point = TRACE_UNKNOWN;
	event->proxy_port = is_drop || reason ? 0 : verdict->proxy_port;
	event->ifindex = skb->ifindex;
	event->state = STATE_UNKNOWN;
	event->reply = 0;
	event->pad = 0;
	event->packets = is_drop;
	event->bytes = is_drop ? length : 0;
	bpf_ringbuf_submit(event, event_wakeup());
	event_count(EVENTS_SUBMITTED, 1);
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
