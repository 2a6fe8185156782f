/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* verdict: may this packet pass?  Conntrack remembers the answer, policy gives it.
 * An answer holds while the runtime's epoch does.
 */
#pragma once
#include "conntrack.h"
#include "endpoint.h"
#include "fragment.h"
#include "host.h"
#include "ipcache.h"
#include "mark.h"
#include "names.h"
#include "policy.h"
#include "report.h"
#include "runtime.h"

/* Asks the set of entries *policy_id* (0: an empty one) about *packet*, which opens a connection in
 * verdict->direction.  Sets the verdict's rule and match.  0, or the drop reason of the entry that decides.
 */
GLOBAL int policy_consult(struct __sk_buff *skb, const struct packet *packet, struct verdict *verdict,
			  __u32 policy_id)
{
	struct policy_value *chosen = NULL;

	if (!packet || !verdict)
		return DROP_INVALID;
	verdict->rule = 0;
	verdict->match = MATCH_NONE;
	if (policy_id) {
		__u32 peer = verdict->direction == POLICY_EGRESS ? verdict->destination_identity
								 : verdict->source_identity;
		struct policy_key key = {
			.prefix_len = POLICY_PREFIX_PORT,
			.policy_id = policy_id,
			.identity = peer,
			.direction = verdict->direction,
			.protocol = packet->protocol,
			.port = packet->destination_port,
		};
		__u32 epoch = runtime_epoch();
		struct policy_memo *memo = policy_memo_of(&key);

		if (!memo)
			return DROP_INVALID;
		if (!policy_memo_holds(memo, &key, epoch)) {
			memo->match = policy_choose(&key, &memo->decides);
			memo->policy_id = key.policy_id;
			memo->identity = peer;
			memo->direction = key.direction;
			memo->protocol = key.protocol;
			memo->port = key.port;
			memo->epoch = epoch;
		}
		if (memo->decides) {
			key.prefix_len = POLICY_PREFIX_PORT;
			key.identity = memo->decides == SIDE_PEER ? peer : 0;
			chosen = bpf_map_lookup_elem(&cirri_policy, &key);
		}
		if (chosen) {
			verdict->match = memo->match;
			verdict->rule = chosen->rule;
			/* Not atomic: values of an LPM trie are not aligned, and an atomic operation
			 * across two cache lines locks the bus (measured: 60 us and more).
			 */
			chosen->packets++;
			chosen->bytes += skb->len;
			return policy_act(chosen);
		}
	}
	return 0;
}

/* The same; *closed*: what no entry speaks of may not pass. */
static __always_inline int policy_judge(struct __sk_buff *skb, const struct packet *packet,
					struct verdict *verdict, __u32 policy_id, __u32 closed)
{
	int error = policy_consult(skb, packet, verdict, policy_id);

	return !error && !verdict->match && closed ? DROP_POLICY : error;
}

/* Asks *endpoint*'s policy about *packet*, which opens a connection with *peer* in *direction*.
 * 0, or a drop reason.  What only audit lets pass is told once for each connection.
 */
GLOBAL int policy_ask(struct __sk_buff *skb, const struct packet *packet,
				 const struct endpoint *endpoint, struct verdict *verdict, __u32 direction)
{
	bool out = direction == POLICY_EGRESS;
	__u32 rule, match;
	int error;

	if (!packet || !endpoint || !verdict)
		return DROP_INVALID;
	verdict->direction = direction;
	verdict->endpoint = endpoint->id;
	error = policy_judge(skb, packet, verdict, endpoint->policy_id,
			     endpoint->flags & (out ? ENDPOINT_ENFORCE_EGRESS : ENDPOINT_ENFORCE_INGRESS));
	if (error && !(endpoint->flags & ENDPOINT_AUDIT)) {
		report(skb, packet, verdict, EVENT_POLICY_VERDICT, -error);
		return error;
	}
	/* What stays of it is what really let it pass. */
	rule = error ? 0 : verdict->rule;
	match = error ? MATCH_NONE : verdict->match;
	if (!error && endpoint->audit_policy_id)
		error = policy_judge(skb, packet, verdict, endpoint->audit_policy_id,
				     endpoint->flags & (out ? ENDPOINT_AUDIT_EGRESS : ENDPOINT_AUDIT_INGRESS));
	if (error) {
		verdict->audited |= direction;
		if (!(verdict->told & direction))
			report(skb, packet, verdict, EVENT_POLICY_VERDICT, -error);
	}
	verdict->rule = rule;
	verdict->match = match;
	/* That no rule speaks of it where none has to, or that a known connection may stay, is no news. */
	if (!error && match && !(packet->flags & PACKET_AGAIN))
		report(skb, packet, verdict, EVENT_POLICY_VERDICT, 0);
	return 0;
}

/* Judges the connection that *packet* opens between two ends; those of this node have an endpoint.
 * Out of the tunnel the other end's identity came with the packet, in verdict->source_identity (0: it did not).
 */
GLOBAL int judge(struct __sk_buff *skb, const struct packet *packet, const struct endpoint *source,
			    const struct endpoint *destination, struct verdict *verdict)
{
	__u32 named;
	int error;

	if (!packet || !verdict)
		return DROP_INVALID;
	named = packet->flags & PACKET_FROM_OVERLAY ? verdict->source_identity : 0;
	verdict->source_identity = source ? source->identity : ipcache_identity(&packet->source);
	verdict->destination_identity = destination ? destination->identity
				      : named ? named : ipcache_identity(&packet->destination);
	verdict->egress_rule = 0;
	verdict->ingress_rule = 0;
	verdict->audited = 0;
	/* The wire cannot bring what this node or its pods sent. */
	if ((packet->flags & (PACKET_FROM_NETWORK | PACKET_AGAIN)) == PACKET_FROM_NETWORK &&
	    (verdict->source_identity == IDENTITY_HOST || endpoint_lookup(&packet->source)))
		return DROP_INVALID_SOURCE_IP;
	if (named && !source)
		verdict->source_identity = named;
	/* An endpoint that reaches itself is exempt. */
	if (source && destination && source->ifindex == destination->ifindex)
		return 0;
	if (packet->flags & (PACKET_FRAG_NEEDED | PACKET_MASQUERADED))
		return 0;
	/* A pod speaks to an address of the node that no entry stands under. */
	if (source && !endpoint_is_host(source) && !destination && runtime_host_firewall())
		destination = host_receiver(skb, packet, NULL);
	if (source) {
		error = policy_ask(skb, packet, source, verdict, POLICY_EGRESS);
		if (error)
			return error;
		verdict->egress_rule = verdict->rule;
	}
	if (destination) {
		error = policy_ask(skb, packet, destination, verdict, POLICY_INGRESS);
		if (error)
			return error;
		verdict->ingress_rule = verdict->rule;
	}
	return 0;
}

/* A packet on its way through a program. */
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
};

SCRATCH(cirri_passage, struct passage);

/* For a packet that an entry point met in *direction* and knows nothing of yet; NULL: never, but the verifier asks. */
static __always_inline struct passage *passage_begin(__u8 direction)
{
	__u32 zero = 0;
	struct passage *passage = bpf_map_lookup_elem(&cirri_passage, &zero);

	if (!passage)
		return NULL;
	__builtin_memset(&passage->packet, 0, sizeof(passage->packet));
	__builtin_memset(&passage->verdict, 0, sizeof(passage->verdict));
	passage->verdict.direction = direction;
	return passage;
}

/* What the entry point returns for *action*, which is one or a drop reason. */
static __always_inline int passage_end(struct __sk_buff *skb, const struct passage *passage, int action)
{
	return action < 0 ? drop(skb, &passage->packet, &passage->verdict, action) : action;
}

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
	if (!value || value->expires < passage->now || value->epoch != passage->latest)
		return 0;
	/* Who opened the connection knows the other end by that, and nobody else does. */
	if (high == !!(value->flags & CT_FROM_HIGH))
		passage->frontend = value->frontend;
	return 1;
}

/* The first packet of what conntrack does not know: ask policy, and remember the answer. */
GLOBAL int verdict_new(struct __sk_buff *skb, struct passage *passage, const struct endpoint *source,
		       const struct endpoint *destination)
{
	const struct packet *packet;
	struct verdict *verdict;
	struct ct_value value;
	struct ct_key key;
	int error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	verdict = &passage->verdict;
	error = judge(skb, packet, source, destination, verdict);
	if (error)
		return error;
	if (!ct_wanted(packet))
		return 0;
	value.expires = passage->now + ct_lifetime_ns(packet->protocol, 0);
	value.forward_packets = 1;
	value.forward_bytes = skb->len;
	value.reply_packets = 0;
	value.reply_bytes = 0;
	value.source_identity = verdict->source_identity;
	value.destination_identity = verdict->destination_identity;
	value.epoch = passage->epoch;
	value.egress_rule = verdict->egress_rule;
	value.ingress_rule = verdict->ingress_rule;
	value.flags = (passage->high ? CT_FROM_HIGH : 0) | ct_learn(0, packet, false) |
		      CT_AUDITED(verdict->audited) | (packet->flags & PACKET_MASQUERADED ? CT_MASQUERADED : 0);
	value.frontend = passage->frontend;
	value.pad = 0;
	key = passage->key;	/* an argument is no key, see bpf/README.md */
	if (bpf_map_update_elem(&cirri_ct, &key, &value, BPF_ANY))
		return DROP_CT_CREATE_FAILED;
	if (!(packet->flags & PACKET_MASQUERADED))
		report(skb, packet, verdict, EVENT_CONNECTION_NEW, 0);
	return 0;
}

/* Tells that this packet ended the connection in *value*, as seen from the end that opened it. */
GLOBAL int report_closed(struct __sk_buff *skb, const struct passage *passage, const struct ct_value *value)
{
	struct verdict verdict = {};
	struct packet forward;

	if (!passage || !value || value->flags & CT_MASQUERADED)
		return 0;
	verdict.source_identity = value->source_identity;
	verdict.destination_identity = value->destination_identity;
	verdict.endpoint = passage->verdict.endpoint;
	verdict.packets = value->forward_packets + value->reply_packets;
	verdict.bytes = value->forward_bytes + value->reply_bytes;
	ct_forward(&forward, &passage->packet, passage->reply);
	return report(skb, &forward, &verdict, EVENT_CONNECTION_CLOSED, 0);
}

/* To be called before anything is looked up that the epoch covers, endpoints among it: a change
 * meanwhile leaves an old epoch behind, never an old answer under a new one.
 */
static __always_inline void verdict_begin(struct passage *passage)
{
	const struct runtime *runtime = runtime_get();

	passage->epoch = runtime ? *(const volatile __u32 *)&runtime->epoch : 0;
	passage->switches = runtime ? runtime->flags : 0;
	passage->host_firewall = passage->switches & RUNTIME_HOST_FIREWALL;
	passage->frontend = 0;
}

/* May the packet pass?  0, or a drop reason.
 * *source*: set if its egress policy is asked here; *destination*: set if it is on this node.
 */
static __always_inline int verdict_take(struct __sk_buff *skb, struct passage *passage,
					const struct endpoint *source, const struct endpoint *destination)
{
	struct packet *packet = &passage->packet;
	struct ct_value *value;

	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) {
		int error = fragment_resolve(packet);

		if (error)
			return error;
	}
	/* The endpoints may be newer than the epoch that was read before them (a CPU can stand still in
	 * between): what was allowed before one of them had its address must not be allowed to it.
	 */
	passage->latest = runtime_epoch();
	passage->now = bpf_ktime_get_coarse_ns();
	passage->high = ct_key_set(&passage->key, packet);
	passage->reply = 0;
	value = bpf_map_lookup_elem(&cirri_ct, &passage->key);
	if (value) {
		passage->reply = passage->high != !!(value->flags & CT_FROM_HIGH);
		if (ct_continues(value, packet, passage->reply, passage->now)) {
			if (value->epoch != passage->latest) {
				int error = judge_again(skb, passage, value, source, destination);

				/* The entry stays under its old epoch, for as long as the end that opened
				 * the connection tries: it remembers who that was.  Without it the other
				 * end's next packet would open the connection the other way round.
				 */
				if (error) {
					if (!passage->reply)
						value->expires = passage->now +
								 ct_lifetime_ns(packet->protocol, value->flags);
					return error;
				}
			}
			if (ct_update(value, packet, passage->reply, passage->now, skb->len))
				report_closed(skb, passage, value);
			/* Of two that a client reaches one pod by, with one port, it waits for the last. */
			if (passage->frontend)
				value->frontend = passage->frontend;
			passage->frontend = value->frontend;
			return 0;
		}
	}
	if (packet->flags & PACKET_ICMP_ERROR && icmp_is_related(skb, passage, source))
		return 0;
	return verdict_new(skb, passage, source, destination);
}
