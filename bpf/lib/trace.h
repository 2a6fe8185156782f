/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* trace: observers are told of packets that pass, once it is known where to; of those between, only how many. */
#pragma once
#include "endpoint.h"
#include "host.h"
#include "ipcache.h"
#include "overlay.h"
#include "passage.h"
#include "tell.h"

enum tell {
	TELL_TRACE = 1,
	TELL_CLOSED = 2,
};

/* Counts *packet* and keeps the entry alive; what observers are to hear of it (enum tell).
 * All of it is atomic, so that no packet is told twice or not at all, and the end once.
 */
static __always_inline __u32 ct_update(struct ct_value *value, const struct packet *packet, bool reply,
				       __u64 now, __u32 length, const struct tracing *tracing)
{
	__u32 flags = value->flags;
	__u32 learned = ct_learn(flags, packet, reply);
	__u32 told = reply ? value->reply_told : value->forward_told;
	__u8 seen = reply ? value->reply_seen : value->forward_seen;
	__u64 before = __sync_fetch_and_add(ct_untold(value, reply), CT_ONE + length);
	__u32 tell = 0;

	if (ct_tick(now) - told > tracing->interval - 1 || packet->tcp_flags & tracing->flags & ~seen ||
	    before & CT_MANY || tracing->each)
		tell = TELL_TRACE;
	if (learned) {
		flags = __sync_fetch_and_or(&value->flags, learned);
		if (!CT_CLOSED(flags) && CT_CLOSED(flags | learned))
			tell |= TELL_CLOSED;
		flags |= learned;
	}
	value->expires = now + ct_lifetime_ns(packet->protocol, flags);
	return tell;
}

static __always_inline void ct_told(struct ct_value *value, bool reply, __u64 now, __u8 tcp_flags)
{
	if (reply) {
		value->reply_told = ct_tick(now);
		value->reply_seen |= tcp_flags;
	} else {
		value->forward_told = ct_tick(now);
		value->forward_seen |= tcp_flags;
	}
}

/* Tells that *sight* ended the connection in *value*, with what is untold of both directions. */
GLOBAL int trace_closed(struct event *sight, struct ct_value *value)
{
	if (!sight || !value)
		return 0;
	sight->type = EVENT_CONNECTION_CLOSED;
	sight->point = TRACE_UNKNOWN;
	sight->state = STATE_UNKNOWN;
	if (sight->reply == 2)
		sight_turn(sight);
	trace_tell(sight, value);
	if (value->reply_untold) {
		sight_turn(sight);
		trace_tell(sight, value);
	}
	return 0;
}

/* Notes that observers are to hear of the packet, as it is now. */
GLOBAL int sight(struct __sk_buff *skb, struct passage *passage, __u32 tell)
{
	const struct packet *packet;
	struct event *sight;

	if (!passage)
		return 0;
	packet = &passage->packet;
	sight = &passage->sight;
	__builtin_memset(sight, 0, sizeof(*sight));
	sight->source = packet->source;
	sight->destination = packet->destination;
	sight->source_port = packet->source_port;
	sight->destination_port = packet->destination_port;
	sight->protocol = packet->protocol;
	sight->tcp_flags = packet->tcp_flags;
	sight->type = EVENT_TRACE;
	sight->length = skb->len;
	sight->ifindex = skb->ifindex;
	passage->length = skb->len;
	passage->tell = tell;
	return 0;
}

/* Whose the ends are, where conntrack does not tell. */
static __always_inline void sight_identify(struct passage *passage)
{
	struct event *sight = &passage->sight;

	sight->source_identity = passage->verdict.source_identity ? passage->verdict.source_identity
								  : ipcache_identity(&sight->source);
	sight->destination_identity = passage->verdict.destination_identity
					      ? passage->verdict.destination_identity
					      : ipcache_identity(&sight->destination);
}

static __always_inline __u16 trace_endpoint(const union address *address, __u32 epoch, __u32 end)
{
	const struct endpoint *endpoint = endpoint_recall(address, epoch, end);

	return endpoint ? endpoint->id : 0;
}

/* Where the packet goes, after *action*. */
static __always_inline __u8 trace_point(struct __sk_buff *skb, const struct passage *passage, int action)
{
	const union address *to = &passage->packet.destination;
	const struct endpoint *endpoint;

	if (passage->to_proxy)
		return TRACE_TO_PROXY;
	if (passage->where == TRACE_TO_ENDPOINT || passage->where == TRACE_TO_NETWORK ||
	    passage->where == TRACE_TO_OVERLAY)
		return passage->where;
	endpoint = endpoint_recall(to, passage->epoch, END_RECEIVER);
	if (endpoint && !endpoint_is_host(endpoint))
		return action == TC_ACT_REDIRECT ? TRACE_TO_ENDPOINT : TRACE_TO_STACK;
	if (action == TC_ACT_REDIRECT)
		return passage->packet.grown || overlay_is_addressed(skb) ? TRACE_TO_OVERLAY : TRACE_TO_NETWORK;
	return endpoint || ipcache_identity(to) == IDENTITY_HOST ? TRACE_TO_HOST : TRACE_TO_STACK;
}

/* Tells what is to be told of a packet that passes by *action*. */
GLOBAL int trace(struct __sk_buff *skb, struct passage *passage, int action)
{
	struct ct_value *value = NULL;
	struct event *sight;
	struct ct_key key;

	if (!passage)
		return 0;
	sight = &passage->sight;
	sight->point = trace_point(skb, passage, action);
	if (sight->point == TRACE_TO_ENDPOINT) {
		sight->endpoint = trace_endpoint(&passage->packet.destination, passage->epoch, END_RECEIVER);
	} else {
		sight->endpoint = trace_endpoint(&sight->source, passage->epoch, END_SENDER);
		if (!sight->endpoint)
			sight->endpoint = trace_endpoint(&sight->destination, passage->epoch, END_RECEIVER);
	}
	if (passage->counted) {
		key = passage->key;
		value = bpf_map_lookup_elem(&cirri_ct, &key);
	}
	if (!value) {
		sight_identify(passage);
		sight->state = passage->related ? STATE_RELATED : STATE_UNKNOWN;
		sight->reply = passage->related;
		sight->packets = 1;
		sight->bytes = passage->length;
		return trace_tell(sight, NULL);
	}
	sight->source_identity = passage->reply ? value->destination_identity : value->source_identity;
	sight->destination_identity = passage->reply ? value->source_identity : value->destination_identity;
	sight->state = passage->reply ? STATE_REPLY : value->forward_packets ? STATE_ESTABLISHED : STATE_NEW;
	sight->reply = 1 + !!passage->reply;
	sight->rule = value->ingress_rule ? value->ingress_rule : value->egress_rule;
	if (passage->tell & TELL_TRACE) {
		ct_told(value, passage->reply, passage->now, sight->tcp_flags);
		trace_tell(sight, value);
	}
	return passage->tell & TELL_CLOSED ? trace_closed(sight, value) : 0;
}

/* Tells where a packet comes from, which counts none: where it goes to does. */
GLOBAL int trace_from(struct __sk_buff *skb, struct passage *passage)
{
	struct event *seen;

	if (!passage)
		return 0;
	sight(skb, passage, 0);
	seen = &passage->sight;
	seen->point = passage->where;
	if (passage->where == TRACE_TO_ENDPOINT || passage->where == TRACE_TO_NETWORK ||
	    passage->where == TRACE_TO_OVERLAY)
		seen->point = passage->mark ? TRACE_FROM_PROXY : skb->ingress_ifindex ? TRACE_FROM_STACK : TRACE_FROM_HOST;
	seen->endpoint = passage->verdict.endpoint;
	sight_identify(passage);
	return trace_tell(seen, NULL);
}

/* What no event will be about is as if it had been told. */
GLOBAL int ct_pass_over(struct passage *passage, struct ct_value *value)
{
	if (!passage || !value)
		return 0;
	ct_told(value, passage->reply, passage->now, passage->packet.tcp_flags);
	ct_claim(value, passage->reply);
	return 0;
}

/* Counts a packet of the connection in *value*, and notes what observers are to hear of it. */
static __always_inline void passage_count(struct __sk_buff *skb, struct passage *passage, struct ct_value *value)
{
	__u32 tell = ct_update(value, &passage->packet, passage->reply, passage->now, skb->len, &passage->tracing);

	passage->counted = 1;
	passage->length = skb->len;
	if (!tell)
		return;
	if (ct_is_silent(&passage->key, value))
		ct_pass_over(passage, value);
	else
		sight(skb, passage, tell);
}

/* Ends a packet for *error*, a negative drop reason: if it was counted, that is taken back. */
GLOBAL int passage_drop(struct __sk_buff *skb, struct passage *passage, int error)
{
	struct ct_value *value;
	struct ct_key key;
	__u64 *untold, one;

	if (!passage)
		return TC_ACT_SHOT;
	if (passage->counted) {
		key = passage->key;
		value = bpf_map_lookup_elem(&cirri_ct, &key);
		one = CT_ONE + passage->length;
		untold = value ? ct_untold(value, passage->reply) : NULL;
		if (untold && __sync_fetch_and_add(untold, -one) < one)
			__sync_fetch_and_add(untold, one);	/* another CPU told it meanwhile */
		passage->verdict.length = passage->length;
	}
	return drop(skb, &passage->packet, &passage->verdict, error);
}

/* What the entry point returns for *action*, which is one or a drop reason. */
static __always_inline int passage_end(struct __sk_buff *skb, struct passage *passage, int action)
{
	if (action < 0)
		return passage_drop(skb, passage, action);
	if (passage->tell)
		trace(skb, passage, action);
	return action;
}
