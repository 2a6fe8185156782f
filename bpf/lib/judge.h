/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* judge: what policy says of the packet that opens a connection. */
#pragma once
#include "endpoint.h"
#include "host.h"
#include "ipcache.h"
#include "names.h"
#include "policy.h"
#include "report.h"
#include "runtime.h"

/* The key of what *packet*, which opens a connection with *peer* in *direction*, is asked about. */
static __always_inline void policy_key_set(struct policy_key *key, const struct packet *packet, __u32 policy_id,
					   __u32 direction, __u32 peer)
{
	key->prefix_len = POLICY_PREFIX_PORT;
	key->policy_id = policy_id;
	key->identity = peer;
	key->direction = direction;
	key->protocol = packet->protocol;
	key->port = packet->destination_port;
}

/* Which entry of the set *policy_id* decides: enum policy_side, and enum policy_match in the byte above. */
GLOBAL int policy_side(const struct packet *packet, __u32 policy_id, __u32 direction, __u32 peer)
{
	__u32 epoch = runtime_epoch();
	struct policy_memo *memo;
	struct policy_key key;

	if (!packet)
		return SIDE_NONE;
	policy_key_set(&key, packet, policy_id, direction, peer);
	memo = policy_memo_of(&key);
	if (!memo)
		return SIDE_NONE;
	if (!policy_memo_holds(memo, &key, epoch)) {
		memo->match = policy_choose(&key, &memo->decides);
		memo->policy_id = key.policy_id;
		memo->identity = peer;
		memo->direction = key.direction;
		memo->protocol = key.protocol;
		memo->port = key.port;
		memo->epoch = epoch;
	}
	return memo->decides | memo->match << 8;
}

/* Asks the set of entries *policy_id* (0: an empty one) about *packet*, which opens a connection with *peer* in
 * verdict->direction.  Sets the verdict's rule, match and proxy.  0, or the drop reason of the entry that decides.
 */
GLOBAL int policy_consult(struct __sk_buff *skb, const struct packet *packet, struct verdict *verdict,
			  __u32 policy_id, __u32 peer)
{
	struct policy_value *chosen;
	struct policy_key key;
	__u32 side;
	int error;

	if (!packet || !verdict)
		return DROP_INVALID;
	verdict->rule = 0;
	verdict->match = MATCH_NONE;
	verdict->proxy_port = 0;
	side = policy_id ? policy_side(packet, policy_id, verdict->direction, peer) : SIDE_NONE;
	if ((side & 0xff) == SIDE_NONE)
		return 0;
	policy_key_set(&key, packet, policy_id, verdict->direction, (side & 0xff) == SIDE_PEER ? peer : 0);
	chosen = bpf_map_lookup_elem(&cirri_policy, &key);
	if (!chosen)
		return 0;
	verdict->match = side >> 8;
	verdict->rule = chosen->rule;
	/* Not atomic: values of an LPM trie are not aligned, and an atomic operation
	 * across two cache lines locks the bus (measured: 60 us and more).
	 */
	chosen->packets++;
	chosen->bytes += skb->len;
	error = policy_act(chosen, packet->protocol, runtime_proxies());
	if (!error)
		verdict->proxy_port = chosen->proxy_port;
	return error;
}

/* Do entries about the names *names* decide, rather than those about *identity*, which has the address?
 * A denial does; then the larger redirect priority, the longer prefix, and the names.
 */
GLOBAL int names_decide(const struct packet *packet, __u32 policy_id, __u32 identity, __u32 names)
{
	const struct policy_value *own, *named;
	struct policy_key key;
	__u32 own_side, side;

	if (!packet)
		return 0;
	own_side = policy_side(packet, policy_id, POLICY_EGRESS, identity) & 0xff;
	side = policy_side(packet, policy_id, POLICY_EGRESS, names) & 0xff;
	if (side != SIDE_PEER)
		return 0;	/* what holds for any peer holds for the address too */
	if (own_side == SIDE_NONE)
		return 1;
	if (own_side == SIDE_ANY)
		identity = 0;
	policy_key_set(&key, packet, policy_id, POLICY_EGRESS, identity);
	own = bpf_map_lookup_elem(&cirri_policy, &key);
	key.identity = names;
	named = bpf_map_lookup_elem(&cirri_policy, &key);
	if (!own || !named)
		return !own;
	if (own->action == ACTION_DENY || named->action == ACTION_DENY)
		return own->action != ACTION_DENY;
	if (own->priority != named->priority)
		return named->priority > own->priority;
	return !policy_is_longer(&key, identity, own, names, named);
}

/* Policy of what goes out to a destination that has names: about them, or about its address. */
GLOBAL int names_consult(struct __sk_buff *skb, const struct packet *packet, struct verdict *verdict, __u32 policy_id)
{
	__u32 names;
	int error;

	if (!packet || !verdict)
		return DROP_INVALID;
	names = verdict->names;
	if (!policy_id || !names_decide(packet, policy_id, verdict->destination_identity, names))
		return policy_consult(skb, packet, verdict, policy_id, verdict->destination_identity);
	error = policy_consult(skb, packet, verdict, policy_id, names);
	verdict->destination_identity = names;
	return error;
}

/* Asks one set of entries; *closed*: what none of them speaks of may not pass. */
static __always_inline int policy_judge(struct __sk_buff *skb, const struct packet *packet,
					struct verdict *verdict, __u32 policy_id, __u32 closed)
{
	bool out = verdict->direction == POLICY_EGRESS;
	int error;

	if (verdict->names)
		error = names_consult(skb, packet, verdict, policy_id);
	else
		error = policy_consult(skb, packet, verdict, policy_id,
				       out ? verdict->destination_identity : verdict->source_identity);
	return !error && !verdict->match && closed ? DROP_POLICY : error;
}

/* Asks *endpoint*'s policy about *packet*, which opens a connection with *peer* in *direction*.
 * 0, or a drop reason.  What only audit lets pass is told once for each connection.
 */
GLOBAL int policy_ask(struct __sk_buff *skb, const struct packet *packet,
				 const struct endpoint *endpoint, struct verdict *verdict, __u32 direction)
{
	bool out = direction == POLICY_EGRESS;
	__u32 rule, match, port, identity;
	int error;

	if (!packet || !endpoint || !verdict)
		return DROP_INVALID;
	verdict->direction = direction;
	verdict->endpoint = endpoint->id;
	identity = verdict->destination_identity;
	verdict->names = out && endpoint->flags & ENDPOINT_NAMES && identity_is_outside(identity)
				 ? names_lookup(endpoint->id, &packet->destination) : 0;
	error = policy_judge(skb, packet, verdict, endpoint->policy_id,
			     endpoint->flags & (out ? ENDPOINT_ENFORCE_EGRESS : ENDPOINT_ENFORCE_INGRESS));
	if (error && !(endpoint->flags & ENDPOINT_AUDIT)) {
		report(skb, packet, verdict, EVENT_POLICY_VERDICT, -error);
		return error;
	}
	/* What stays of it is what really let it pass. */
	rule = error ? 0 : verdict->rule;
	match = error ? MATCH_NONE : verdict->match;
	port = error ? 0 : verdict->proxy_port;
	if (!error && endpoint->audit_policy_id) {
		__u32 decided = verdict->destination_identity;

		verdict->destination_identity = identity;
		error = policy_judge(skb, packet, verdict, endpoint->audit_policy_id,
				     endpoint->flags & (out ? ENDPOINT_AUDIT_EGRESS : ENDPOINT_AUDIT_INGRESS));
		if (!error)
			verdict->destination_identity = decided;
	}
	if (error) {
		verdict->audited |= direction;
		if (!(verdict->told & direction))
			report(skb, packet, verdict, EVENT_POLICY_VERDICT, -error);
	}
	verdict->rule = rule;
	verdict->match = match;
	verdict->proxy_port = port;
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
	__u32 named, port;
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
	verdict->proxy_port = 0;
	/* The wire cannot bring what this node or its pods sent. */
	if ((packet->flags & (PACKET_FROM_NETWORK | PACKET_AGAIN)) == PACKET_FROM_NETWORK &&
	    (verdict->source_identity == IDENTITY_HOST || endpoint_lookup(&packet->source)))
		return DROP_INVALID_SOURCE_IP;
	if (named && !source)
		verdict->source_identity = named;
	/* An endpoint that reaches itself is exempt. */
	if (source && destination && source->ifindex == destination->ifindex)
		return 0;
	if (packet->flags & (PACKET_FRAG_NEEDED | PACKET_MASQUERADED | PACKET_UPSTREAM))
		return 0;
	/* A pod speaks to an address of the node that no entry stands under. */
	if (source && !endpoint_is_host(source) && !destination && runtime_host_firewall())
		destination = host_receiver(skb, packet, NULL);
	if (source && !(packet->flags & PACKET_OF_PROXY)) {
		error = policy_ask(skb, packet, source, verdict, POLICY_EGRESS);
		if (error)
			return error;
		verdict->egress_rule = verdict->rule;
	}
	/* What goes to a proxy first is asked about when that sends it on: to the node itself nobody could. */
	if (destination && (!verdict->proxy_port || endpoint_is_host(destination))) {
		port = verdict->proxy_port;
		error = policy_ask(skb, packet, destination, verdict, POLICY_INGRESS);
		if (error)
			return error;
		verdict->ingress_rule = verdict->rule;
		if (port)
			verdict->proxy_port = port;
	}
	return 0;
}

