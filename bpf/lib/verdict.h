/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* verdict: may this packet pass?  Conntrack remembers the answer, policy gives it.
 * An answer holds while the runtime's epoch does.
 */
#pragma once
#include "conntrack.h"
#include "endpoint.h"
#include "fragment.h"
#include "judge.h"
#include "mark.h"
#include "passage.h"
#include "policy.h"
#include "report.h"
#include "runtime.h"
#include "socket.h"
#include "trace.h"

/* Judges a known connection again: something changed since it was allowed. */
GLOBAL int judge_again(struct __sk_buff *skb, struct passage *passage, struct ct_value *value,
		       const struct endpoint *source, const struct endpoint *destination)
{
	struct verdict *verdict;
	struct packet forward;
	int error;

	if (!passage || !value)
		return DROP_INVALID;
	verdict = &passage->verdict;
	ct_forward(&forward, &passage->packet, passage->reply);
	if (value->flags & CT_MASQUERADED)
		forward.flags |= PACKET_MASQUERADED;
	if (value->flags & CT_UPSTREAM)
		forward.flags |= PACKET_UPSTREAM;
	if (passage->key.leg)
		forward.flags |= PACKET_OF_PROXY;
	verdict->told = ct_audited(value);
	error = passage->reply ? judge(skb, &forward, destination, source, verdict)
			       : judge(skb, &forward, source, destination, verdict);
	if (error)
		return error;
	value->source_identity = verdict->source_identity;
	value->destination_identity = verdict->destination_identity;
	value->egress_rule = verdict->egress_rule;
	value->ingress_rule = verdict->ingress_rule;
	ct_audited_set(value, verdict->audited);
	if (verdict->proxy_port && !(value->flags & CT_REDIRECTED))
		__sync_fetch_and_or(&value->flags, CT_REDIRECTED);
	value->epoch = passage->epoch;
	return 0;
}

/* Finds in *inner* what the ICMP error *outer* is about; false if that is no packet of a connection. */
static __always_inline bool icmp_inner(struct __sk_buff *skb, const struct packet *outer, struct packet *inner)
{
	__u32 offset = outer->l4_offset + 8;
	struct l4_header l4;

	if (outer->family == 4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return false;
		if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(IP4_OFFSET))
			return false;
		inner->protocol = ip.protocol;
		inner->l4_offset = offset + ip.ihl * 4;
		address_set4(&inner->source, ip.saddr);
		address_set4(&inner->destination, ip.daddr);
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
			return false;
		inner->protocol = ip.nexthdr;
		inner->l4_offset = offset + sizeof(ip);
		__builtin_memcpy(&inner->source, &ip.saddr, sizeof(inner->source));
		__builtin_memcpy(&inner->destination, &ip.daddr, sizeof(inner->destination));
		if (parse_extensions6(skb, inner) || inner->flags & PACKET_LATER_FRAGMENT)
			return false;
	}
	inner->family = outer->family;
	if (bpf_skb_load_bytes(skb, inner->l4_offset, &l4, L4_BASE))
		return false;
	switch (inner->protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return !parse_icmp(inner, &l4) && !(inner->flags & PACKET_ICMP_ERROR);
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		inner->source_port = l4.ports.source;
		inner->destination_port = l4.ports.destination;
		return true;
	}
	return false;
}

/* Does the ICMP error in *passage* tell of a packet of a known connection?
 * One that was judged under another epoch proves nothing until a packet of its own was judged again.
 * *source*: who sent the error, if it is an endpoint of this node.
 */
GLOBAL int icmp_is_related(struct __sk_buff *skb, struct passage *passage, const struct endpoint *source)
{
	struct packet inner = {};
	struct ct_value *value;
	struct ct_key key;
	bool high;

	if (!passage || !icmp_inner(skb, &passage->packet, &inner))
		return 0;
	/* It goes to who sent that packet; and a pod, which is no router, may speak of what was sent to it only. */
	if (!address_equal(&inner.source, &passage->packet.destination))
		return 0;
	if (source && !endpoint_is_host(source) && !address_equal(&inner.destination, &passage->packet.source))
		return 0;
	high = ct_key_set(&key, &inner);
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (passage->switches & RUNTIME_PROXIES) {
		/* What the client sent ended in the proxy, which sends on its own. */
		if (!value || value->expires < passage->now || (value->flags & CT_REDIRECTED && high == !!(value->flags & CT_FROM_HIGH))) {
			key.leg = 1;
			value = bpf_map_lookup_elem(&cirri_ct, &key);
		}
	}
	if (!value || value->expires < passage->now || value->epoch != passage->latest)
		return 0;
	passage->to_proxy = key.leg || value->flags & CT_REDIRECTED;
	/* Who opened the connection knows the other end by that, and nobody else does. */
	if (high == !!(value->flags & CT_FROM_HIGH))
		passage->frontend = value->frontend;
	return 1;
}

/* An entry of cirri_ct on its way there. */
struct ct_entry {
	struct ct_key key;
	struct ct_value value;
};

SCRATCH(cirri_ct_entry, struct ct_entry);

/* The first packet of what conntrack does not know: ask policy, and remember the answer. */
GLOBAL int verdict_new(struct __sk_buff *skb, struct passage *passage, const struct endpoint *source,
		       const struct endpoint *destination)
{
	const struct packet *packet;
	struct verdict *verdict;
	struct ct_value *value, *over = NULL;
	struct ct_entry *entry;
	struct ct_key *key;
	__u32 zero = 0;
	int error;

	entry = bpf_map_lookup_elem(&cirri_ct_entry, &zero);
	if (!passage || !entry)
		return DROP_INVALID;
	packet = &passage->packet;
	verdict = &passage->verdict;
	error = judge(skb, packet, source, destination, verdict);
	if (error)
		return error;
	if (!(packet->flags & (PACKET_MASQUERADED | PACKET_OF_PROXY)))
		sight(skb, passage, TELL_TRACE);
	if (!ct_wanted(packet))
		return 0;
	key = &entry->key;
	*key = passage->key;	/* an argument is no key, see bpf/README.md */
	value = &entry->value;
	value->forward_untold = CT_ONE + skb->len;
	value->reply_untold = 0;
	/* Ports are used again: to write where the connection before stands costs a tenth of a new place. */
	if (passage->ended)
		over = bpf_map_lookup_elem(&cirri_ct, key);
	if (over) {
		ct_inherit(value, over, passage->high == !!(over->flags & CT_FROM_HIGH));
		if (over->expires < passage->now || CT_CLOSED(over->flags)) {
			over->forward_untold = value->forward_untold;
			over->reply_untold = value->reply_untold;
			value = over;
		}
	}
	value->expires = passage->now + ct_lifetime_ns(packet->protocol, 0);
	value->forward_told = ct_tick(passage->now) - CT_LONG_AGO;
	value->reply_told = ct_tick(passage->now) - CT_LONG_AGO;
	value->forward_seen = 0;
	value->reply_seen = 0;
	value->pad = 0;
	value->forward_packets = 0;
	value->forward_bytes = 0;
	value->reply_packets = 0;
	value->reply_bytes = 0;
	value->source_identity = verdict->source_identity;
	value->destination_identity = verdict->destination_identity;
	value->epoch = passage->epoch;
	value->egress_rule = verdict->egress_rule;
	value->ingress_rule = verdict->ingress_rule;
	value->flags = (passage->high ? CT_FROM_HIGH : 0) | ct_learn(0, packet, false) |
		      CT_AUDITED(verdict->audited) | (packet->flags & PACKET_MASQUERADED ? CT_MASQUERADED : 0) |
		      (packet->flags & PACKET_UPSTREAM ? CT_UPSTREAM : 0) | (verdict->proxy_port ? CT_REDIRECTED : 0);
	value->frontend = passage->frontend;
	passage->counted = 1;
	passage->length = skb->len;
	if (value == over)
		return 0;
	if (bpf_map_update_elem(&cirri_ct, key, value, over ? BPF_ANY : BPF_NOEXIST)) {
		/* Another packet of it was first, on another CPU; or there is no place. */
		over = bpf_map_lookup_elem(&cirri_ct, key);
		passage->counted = !!over;
		if (!over)
			return DROP_CT_CREATE_FAILED;
		passage->reply = passage->high != !!(over->flags & CT_FROM_HIGH);
		__sync_fetch_and_add(ct_untold(over, passage->reply), CT_ONE + skb->len);
	}
	return 0;
}

/* To be called before anything is looked up that the epoch covers, endpoints among it: a change
 * meanwhile leaves an old epoch behind, never an old answer under a new one.
 */
static __always_inline void verdict_begin(struct __sk_buff *skb, struct passage *passage)
{
	const struct runtime *runtime = runtime_get();

	passage->epoch = runtime ? *(const volatile __u32 *)&runtime->epoch : 0;
	passage->switches = runtime ? runtime->flags : 0;
	passage->host_firewall = passage->switches & RUNTIME_HOST_FIREWALL;
	passage->frontend = 0;
	passage->mark = passage->switches & RUNTIME_PROXIES ? mark_of_proxy(skb->mark) : 0;
	passage->to_proxy = 0;
	passage->proxy_port = 0;
	passage->tracing.interval = runtime ? runtime->trace_interval : 0;
	passage->tracing.flags = runtime ? runtime->trace_flags : 0;
	passage->tracing.each = !!(passage->switches & RUNTIME_TRACE_EACH);
}

/* What is known of the connection under passage->key, if *packet* is part of it; says whether it is a reply. */
static __always_inline struct ct_value *verdict_lookup(struct passage *passage)
{
	struct ct_value *value = bpf_map_lookup_elem(&cirri_ct, &passage->key);
	bool reply;

	if (!value)
		return NULL;
	reply = passage->high != !!(value->flags & CT_FROM_HIGH);
	if (!ct_continues(value, &passage->packet, reply, passage->now)) {
		passage->ended = 1;
		return NULL;
	}
	passage->reply = reply;
	return value;
}

/* The same with proxies about, whose connections to servers look like their clients'.  *value*: what is known of
 * the client's.
 */
static __always_inline struct ct_value *verdict_lookup_legs(struct passage *passage, struct ct_value *value)
{
	bool reply = passage->reply, answers = !passage->mark;
	struct ct_value *upstream;

	if (passage->mark == MARK_EGRESS_CLIENT)
		return value;
	if (mark_is_server_side(passage->mark))
		passage->packet.flags |= passage->mark == MARK_INGRESS_SERVER ? PACKET_OF_PROXY | PACKET_UPSTREAM
									      : PACKET_OF_PROXY;
	passage->key.leg = 1;
	passage->reply = 0;
	upstream = verdict_lookup(passage);
	if (mark_is_server_side(passage->mark))
		return upstream;
	/* A server answers a proxy; or one proxy the other, which stands before it. */
	if (upstream && passage->reply && (answers || upstream->flags & CT_REDIRECTED)) {
		passage->to_proxy = 1;
		return upstream;
	}
	passage->key.leg = 0;
	passage->reply = reply;
	return value;
}

/* What is known of the packet's connection; NULL: it is none. */
static __always_inline struct ct_value *verdict_known(struct passage *passage)
{
	struct ct_value *value;

	passage->high = ct_key_set(&passage->key, &passage->packet);
	passage->reply = 0;
	passage->ended = 0;
	value = verdict_lookup(passage);
	if (!(passage->switches & RUNTIME_PROXIES))
		return value;
	if (value && !passage->mark && !(passage->reply && value->flags & CT_REDIRECTED))
		return value;
	return verdict_lookup_legs(passage, value);
}

/* Does a server answer what a proxy has by now, and did not ask it?  The client hears of it when it sends next. */
static __always_inline bool verdict_is_stale(const struct passage *passage, const struct ct_value *value)
{
	return passage->reply && value->flags & CT_REDIRECTED && !passage->mark;
}

/* Sends on to the proxy what its client sends: to the socket that has the connection, or to the one that listens.
 * Who that is, policy says; if it says no more that it is one, what no socket has goes on without.  0, or a drop reason.
 */
GLOBAL int verdict_redirect(struct __sk_buff *skb, struct passage *passage, const struct endpoint *source,
			    const struct endpoint *destination)
{
	struct ct_value *value;
	struct packet *packet;
	struct ct_key key;
	int error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	passage->to_proxy = 1;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) {
		/* The stack puts them together, and then no socket is theirs but one that has the connection. */
		return packet->protocol == IPPROTO_TCP && !packet_opens(packet) ? 0 : DROP_PROXY_UNKNOWN_PROTO;
	}
	if (packet->protocol == IPPROTO_TCP && socket_has(skb, packet))
		return 0;
	if (!passage->verdict.proxy_port) {
		packet->flags |= PACKET_AGAIN;
		passage->verdict.told = POLICY_INGRESS | POLICY_EGRESS;
		error = judge(skb, packet, source, destination, &passage->verdict);
		if (error)
			return error;
	}
	passage->proxy_port = passage->verdict.proxy_port;
	if (passage->proxy_port)
		return 0;
	passage->to_proxy = 0;
	key = passage->key;
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (value)
		__sync_fetch_and_and(&value->flags, ~CT_REDIRECTED);
	return 0;
}

/* May the packet pass?  0, or a drop reason.
 * *source*: set if its egress policy is asked here; *destination*: set if it is on this node.
 */
static __always_inline int verdict_take(struct __sk_buff *skb, struct passage *passage,
					const struct endpoint *source, const struct endpoint *destination)
{
	struct packet *packet = &passage->packet;
	struct ct_value *value;
	int error;

	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) {
		error = fragment_resolve(packet);
		if (error)
			return error;
	}
	/* The endpoints may be newer than the epoch that was read before them (a CPU can stand still in
	 * between): what was allowed before one of them had its address must not be allowed to it.
	 */
	passage->latest = runtime_epoch();
	passage->now = bpf_ktime_get_coarse_ns();
	if (passage->switches & RUNTIME_TRACE_FROM && !(packet->flags & PACKET_MASQUERADED))
		trace_from(skb, passage);
	value = verdict_known(passage);
	if (value) {
		if (value->epoch != passage->latest) {
			error = judge_again(skb, passage, value, source, destination);
			/* The entry stays under its old epoch, for as long as the end that opened
			 * the connection tries: it remembers who that was.  Without it the other
			 * end's next packet would open the connection the other way round.
			 */
			if (error) {
				if (!passage->reply)
					value->expires = passage->now + ct_lifetime_ns(packet->protocol, value->flags);
				return error;
			}
		}
		if (verdict_is_stale(passage, value))
			return DROP_UNROUTABLE;
		passage_count(skb, passage, value);
		/* Of two that a client reaches one pod by, with one port, it waits for the last. */
		if (passage->frontend)
			value->frontend = passage->frontend;
		passage->frontend = value->frontend;
		if (value->flags & CT_REDIRECTED && !passage->reply)
			return verdict_redirect(skb, passage, source, destination);
		return 0;
	}
	if (packet->flags & PACKET_ICMP_ERROR && icmp_is_related(skb, passage, source)) {
		passage->related = 1;
		if (!(packet->flags & PACKET_MASQUERADED))
			sight(skb, passage, TELL_TRACE);
		return 0;
	}
	if (mark_is_client_side(passage->mark))
		return DROP_UNROUTABLE;	/* a proxy answers nobody */
	error = verdict_new(skb, passage, source, destination);
	if (!error && passage->verdict.proxy_port)
		error = verdict_redirect(skb, passage, source, destination);
	return error;
}
