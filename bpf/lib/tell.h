/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* tell: an event stands for what conntrack counted since the last one. */
#pragma once
#include "conntrack.h"
#include "event.h"

/* Is the connection nobody's news: told of elsewhere, or as its client's? */
static __always_inline bool ct_is_silent(const struct ct_key *key, const struct ct_value *value)
{
	return key->leg || value->flags & CT_MASQUERADED;
}

/* Takes what is untold of a direction, to be told. */
static __always_inline __u64 ct_claim(struct ct_value *value, bool reply)
{
	__u64 sum = __sync_lock_test_and_set(ct_untold(value, reply), 0);

	__sync_fetch_and_add(reply ? &value->reply_packets : &value->forward_packets, CT_PACKETS(sum));
	__sync_fetch_and_add(reply ? &value->reply_bytes : &value->forward_bytes, CT_BYTES(sum));
	return sum;
}

/* Tells *sight*, which stands for what is untold of its direction in *value*; without one, for itself. */
GLOBAL int trace_tell(const struct event *sight, struct ct_value *value)
{
	struct event *event;
	__u64 sum;

	if (!sight)
		return 0;
	event = bpf_ringbuf_reserve(&cirri_events, sizeof(*event), 0);
	if (!event) {
		event_count(EVENTS_LOST, 1);
		if (!value) {
			event_forgo(sight->packets, sight->bytes);
		} else if (*ct_untold(value, sight->reply == 2) & CT_MANY) {
			sum = ct_claim(value, sight->reply == 2);
			event_forgo(CT_PACKETS(sum), CT_BYTES(sum));
		}
		return 0;
	}
	__builtin_memcpy(event, sight, sizeof(*event));
	event->timestamp = bpf_ktime_get_ns();
	if (value) {
		sum = ct_claim(value, sight->reply == 2);
		if (!sum && sight->type == EVENT_TRACE) {
			/* Another CPU told it meanwhile. */
			bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
			return 1;
		}
		event->packets = CT_PACKETS(sum);
		event->bytes = CT_BYTES(sum);
	}
	bpf_ringbuf_submit(event, event_wakeup());
	event_count(EVENTS_SUBMITTED, 1);
	return 1;
}

static __always_inline void sight_turn(struct event *sight)
{
	union address source = sight->source;
	__u32 identity = sight->source_identity;
	__be16 port = sight->source_port;

	sight->source = sight->destination;
	sight->destination = source;
	sight->source_identity = sight->destination_identity;
	sight->destination_identity = identity;
	sight->source_port = sight->destination_port;
	sight->destination_port = port;
	sight->reply = 3 - sight->reply;
}
