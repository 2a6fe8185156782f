/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* nat: connections that leave under an address of the node's and a port of ours, and what answers them.
 * The entries are in natmap.h: the port to try first follows from the connection; only one that got another has an
 * entry NAT_OUT, which tells it.
 */
#pragma once
#include "conntrack.h"
#include "fragment.h"
#include "natmap.h"
#include "rewrite.h"
#include "verdict.h"

#define NAT_PORTS	16384
#define NAT_TRIES	32
#define NAT_TRIES_REST	5	/* after so many a port that rests is good */
#define NAT_IDLE_MS	5000	/* after so long an exchange of datagrams that was answered rests as well */
#define NAT_REST_S	60	/* as long as the other end of a TCP connection may remember it (TIME_WAIT) */

enum nat_result { NAT_NONE = 0, NAT_DONE = 1 };

/* For each connection the same numbers, in the same order. */
static __always_inline __u64 nat_hash(const struct packet *packet, __u32 frontend)
{
	const __u64 odd = 0x9e3779b97f4a7c15;
	__u64 hash = ((__u64)packet->source_port << 32 | packet->destination_port) ^ ((__u64)frontend << 16);

	hash = (hash ^ packet->source.halves[0]) * odd;
	hash = (hash ^ hash >> 29 ^ packet->source.halves[1]) * odd;
	hash = (hash ^ hash >> 29 ^ packet->destination.halves[0]) * odd;
	hash = (hash ^ hash >> 29 ^ packet->destination.halves[1]) * odd;
	return hash ^ hash >> 32;
}

/* The port of ours that is number *attempt*, after the first. */
static __always_inline __be16 nat_nth(__u64 hash, __u32 attempt)
{
	return bpf_htons(NAT_PORT_FIRST + (((__u32)hash + attempt * ((__u32)(hash >> 40) | 1)) & (NAT_PORTS - 1)));
}

/* The port to try first: its own, or what has the same last 14 bits: an end that goes through its ports comes
 * back to one of ours only after as many.  SCTP's port cannot be changed: its checksum is one of the whole packet.
 */
static __always_inline __be16 nat_first(const struct packet *packet)
{
	if (packet->protocol == IPPROTO_SCTP)
		return packet->source_port;
	return bpf_htons(NAT_PORT_FIRST + (bpf_ntohs(packet->source_port) & (NAT_PORTS - 1)));
}

static __always_inline void nat_key_out(struct nat_key *key, const struct packet *packet, __u32 frontend)
{
	key->local = packet->source;
	key->local_port = packet->source_port;
	key->direction = NAT_OUT;
	key->pad = 0;
	key->frontend = frontend;
	key->pad2 = 0;
}

/* Is the entry NAT_BACK of the connection that *packet* is sent on? */
static __always_inline bool nat_is_of(const struct nat_value *value, const struct packet *packet, __u32 frontend)
{
	return address_equal(&value->address, &packet->source) && value->port == packet->source_port &&
	       value->frontend == frontend;
}

/* As long as conntrack keeps such a connection; the port of a closed one rests. */
static __always_inline __u64 nat_lifetime_ns(__u8 protocol, __u32 flags)
{
	return protocol == IPPROTO_TCP && CT_CLOSED(flags) ? NAT_REST_S * 1000000000ull
							   : ct_lifetime_ns(protocol, flags);
}

/* Has *packet* keep the entry alive. */
static __always_inline void nat_touch(struct nat_value *value, const struct packet *packet, bool reply, __u64 now)
{
	bool opens = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	__u32 flags = value->flags, learned;
	__u64 expires;

	if (value->expires < now || (opens && !reply && CT_CLOSED(flags)))
		value->flags = flags = 0;
	learned = ct_learn(flags, packet, reply);
	if (learned)
		flags = __sync_fetch_and_or(&value->flags, learned) | learned;
	expires = now + nat_lifetime_ns(packet->protocol, flags);
	if (value->expires != expires)	/* the clock is coarse: most packets write nothing */
		value->expires = expires;
}

/* Has *packet*'s connection an entry NAT_BACK under *port*?  Then that lives on. */
static __always_inline bool nat_has(struct nat_key *key, const struct packet *packet, const union address *address,
				    __be16 port, __u32 frontend)
{
	struct nat_value *value;

	nat_key_back(key, address, port);
	value = bpf_map_lookup_elem(&cirri_nat, key);
	if (!value || !nat_is_of(value, packet, frontend))
		return false;
	nat_touch(value, packet, false, bpf_ktime_get_coarse_ns());
	return true;
}

static __always_inline void nat_key_to(struct nat_key *key, const struct packet *packet)
{
	key->remote = packet->destination;
	key->remote_port = rewrite_is_icmp(packet->protocol) ? 0 : packet->destination_port;
	key->protocol = packet->protocol;
}

/* The port of *address* that the connection of *packet* has; 0: none. */
GLOBAL int nat_port(const struct packet *packet, const union address *address, __u32 frontend)
{
	const struct nat_value *value;
	struct nat_key key;
	__be16 port;

	if (!packet || !address)
		return 0;
	nat_key_to(&key, packet);
	port = nat_first(packet);
	if (nat_has(&key, packet, address, port, frontend))
		return port;
	nat_key_out(&key, packet, frontend);
	value = bpf_map_lookup_elem(&cirri_nat, &key);
	if (!value)
		return 0;
	port = value->port;
	return nat_has(&key, packet, address, port, frontend) ? port : 0;
}

/* NAT_RESTS, and for how many ms it has. */
enum nat_trial { NAT_TAKEN, NAT_OURS, NAT_RESTS };

/* For how many ms a port has rested since its TCP connection was closed, or its datagram was answered; negative: it
 * is in use.
 */
static __always_inline __s64 nat_rested_ms(const struct nat_value *value, __u8 protocol, __u64 now)
{
	bool tcp = protocol == IPPROTO_TCP;
	__u64 end = now + (tcp ? NAT_REST_S : ct_timeout_any_s) * 1000000000ull, idle_ms;

	if (value->expires > end)
		return -1;
	idle_ms = (end - value->expires) / 1000000;
	if (tcp ? CT_CLOSED(value->flags) : value->flags & CT_SEEN_REPLY && idle_ms >= NAT_IDLE_MS)
		return idle_ms;
	return -1;
}

/* Gives *port* to the connection that *packet* opens, if it is free; *resting*: also if it rests. */
GLOBAL int nat_try(const struct packet *packet, const union address *address, __u32 frontend, __u32 port,
		   __u32 resting)
{
	__u64 now = bpf_ktime_get_coarse_ns(), expires;
	struct nat_value fresh = {}, *value;
	struct nat_key key;
	__s64 rested_ms;

	if (!packet || !address)
		return NAT_TAKEN;
	nat_key_to(&key, packet);
	nat_key_back(&key, address, port);
	fresh.address = packet->source;
	fresh.port = packet->source_port;
	fresh.frontend = frontend;
	fresh.flags = ct_learn(0, packet, false);
	fresh.expires = now + nat_lifetime_ns(packet->protocol, fresh.flags);
	value = bpf_map_lookup_elem(&cirri_nat, &key);
	if (!value) {
		if (!bpf_map_update_elem(&cirri_nat, &key, &fresh, BPF_NOEXIST))
			return NAT_OURS;
		value = bpf_map_lookup_elem(&cirri_nat, &key);	/* another CPU's, now */
		if (!value)
			return NAT_TAKEN;
	}
	if (nat_is_of(value, packet, frontend))
		return NAT_OURS;
	expires = value->expires;
	if (expires >= now) {
		rested_ms = nat_rested_ms(value, packet->protocol, now);
		if (rested_ms < 0)
			return NAT_TAKEN;
		if (!resting)
			return NAT_RESTS + rested_ms;
	}
	/* Whoever changes this has the entry: of two CPUs one. */
	if (__sync_val_compare_and_swap(&value->expires, expires, fresh.expires) != expires)
		return NAT_TAKEN;
	value->address = fresh.address;
	value->port = fresh.port;
	value->frontend = fresh.frontend;
	value->flags = fresh.flags;
	return NAT_OURS;
}

struct nat_entry {
	struct nat_key key;
	struct nat_value value;
};

SCRATCH(cirri_nat_entry, struct nat_entry);

/* Notes that *packet*'s connection has another *port* of *address* than the one to try first. */
static __always_inline void nat_note_out(const struct packet *packet, const union address *address, __u32 frontend,
					 __be16 port)
{
	__u32 zero = 0;
	struct nat_entry *entry = bpf_map_lookup_elem(&cirri_nat_entry, &zero);

	if (!entry)
		return;
	__builtin_memset(&entry->value, 0, sizeof(entry->value));
	nat_key_to(&entry->key, packet);
	nat_key_out(&entry->key, packet, frontend);
	entry->value.address = *address;
	entry->value.port = port;
	entry->value.frontend = frontend;
	bpf_map_update_elem(&cirri_nat, &entry->key, &entry->value, BPF_ANY);
}

/* A port of *address* for the connection that *packet* opens, which has none; 0: no free one was found. */
GLOBAL int nat_port_new(const struct packet *packet, const union address *address, __u32 frontend)
{
	__u32 attempt, tries;
	int trial, longest = NAT_TAKEN;
	__be16 port, first, resting = 0;
	__u64 hash;

	if (!packet || !address)
		return 0;
	hash = nat_hash(packet, frontend);
	tries = packet->protocol == IPPROTO_SCTP ? 1 : NAT_TRIES;
	first = nat_first(packet);
	attempt = 0;
	/* Nothing of the packet is read in here: clang would close the loop with that, by another instruction
	 * than a jump, which Linux 6.1 refuses.
	 */
	do {
		port = attempt ? nat_nth(hash, attempt) : first;
		trial = nat_try(packet, address, frontend, port, false);
		if (trial == NAT_OURS)
			goto found;
		if (trial > longest) {
			longest = trial;
			resting = port;
		}
		attempt++;
	} while (attempt < tries && !(resting && attempt >= NAT_TRIES_REST));
	port = resting;
	if (!resting || nat_try(packet, address, frontend, port, true) != NAT_OURS)
		return 0;
found:
	if (port != first)
		nat_note_out(packet, address, frontend, port);
	return port;
}

/* An ICMP error that the source sends about a packet which an answer's translation brought it. */
GLOBAL int nat_error_out(struct __sk_buff *skb, struct packet *packet, const union address *address,
			 __u32 frontend)
{
	struct packet inner = {};
	struct end to = {};
	int error;

	if (!packet || !address || !icmp_inner(skb, packet, &inner))
		return NAT_NONE;
	ct_reverse(&inner);
	to.port = nat_port(&inner, address, frontend);
	if (!to.port)
		return NAT_NONE;
	ct_reverse(&inner);
	to.address = *address;
	error = rewrite_inner(skb, packet, &inner, &to, REWRITE_DESTINATION);
	if (!error)
		error = rewrite_end(skb, packet, &to, REWRITE_SOURCE);
	return error ? error : NAT_DONE;
}

/* Has *packet*, which is no error, come from *address*, under the port that its connection has there; *take*: one
 * that has none gets one.  NAT_DONE, NAT_NONE (nothing was changed) or a drop reason.
 */
GLOBAL int nat_connection_out(struct __sk_buff *skb, struct packet *packet, const union address *address,
			      __u32 frontend, __u32 take)
{
	struct end to = {};
	int error;

	if (!packet || !address)
		return DROP_INVALID;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) {
		error = fragment_resolve(packet);
		if (error)
			return error;
	}
	/* An answer belongs to a connection of the other end's; what has no identifier, to none. */
	if (rewrite_is_icmp(packet->protocol) &&
	    !icmp_is_request(packet->protocol, bpf_ntohs(packet->destination_port)))
		return NAT_NONE;
	to.port = nat_port(packet, address, frontend);
	if (!to.port && take) {
		to.port = nat_port_new(packet, address, frontend);
		if (!to.port)
			return DROP_NAT_NO_MAPPING;
	}
	if (!to.port)
		return NAT_NONE;
	to.address = *address;
	error = rewrite_end(skb, packet, &to, REWRITE_SOURCE);
	return error ? error : NAT_DONE;
}

/* The same of any packet. */
static __always_inline int nat_send(struct __sk_buff *skb, struct packet *packet, const union address *address,
				    __u32 frontend, bool take)
{
	return packet->flags & PACKET_ICMP_ERROR ? nat_error_out(skb, packet, address, frontend)
						 : nat_connection_out(skb, packet, address, frontend, take);
}

/* Has *packet* come from *address* and a port of ours; 0, or a drop reason.  *frontend*: 0, or the struct
 * lb_service.frontend that its source talks to.
 */
static __always_inline int nat_out(struct __sk_buff *skb, struct packet *packet, const union address *address,
				   __u32 frontend)
{
	int result = nat_send(skb, packet, address, frontend, true);

	return result == NAT_DONE ? 0 : result == NAT_NONE ? DROP_INVALID : result;
}

/* An ICMP error about what left under our port: its receiver is the source, before. */
GLOBAL int nat_error_back(struct __sk_buff *skb, struct packet *packet, __u32 *frontend)
{
	const struct nat_value *value;
	struct packet inner = {};
	struct nat_key key = {};
	struct end to = {};
	int error;

	if (!packet || !frontend || !icmp_inner(skb, packet, &inner) ||
	    !address_equal(&inner.source, &packet->destination))
		return NAT_NONE;
	key.remote = inner.destination;
	key.remote_port = rewrite_is_icmp(inner.protocol) ? 0 : inner.destination_port;
	key.protocol = inner.protocol;
	nat_key_back(&key, &inner.source, inner.source_port);
	value = bpf_map_lookup_elem(&cirri_nat, &key);
	if (!value || value->expires < bpf_ktime_get_coarse_ns())
		return NAT_NONE;
	*frontend = value->frontend;
	to.address = value->address;
	to.port = value->port;
	error = rewrite_inner(skb, packet, &inner, &to, REWRITE_SOURCE);
	if (!error)
		error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : NAT_DONE;
}

/* The same of an answer. */
GLOBAL int nat_answer_back(struct __sk_buff *skb, struct packet *packet, __u32 *frontend)
{
	struct nat_value *value;
	struct nat_key key = {};
	__u64 now = bpf_ktime_get_coarse_ns();
	struct end to = {};
	int error;

	if (!packet || !frontend)
		return DROP_INVALID;
	/* Those of the node's own datagrams are the stack's, also out of order. */
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) && fragment_resolve(packet))
		return NAT_NONE;
	key.remote = packet->source;
	key.protocol = packet->protocol;
	if (rewrite_is_icmp(packet->protocol)) {
		if (!(packet->flags & PACKET_ICMP_REPLY))
			return NAT_NONE;
		nat_key_back(&key, &packet->destination, packet->source_port);
	} else {
		key.remote_port = packet->source_port;
		nat_key_back(&key, &packet->destination, packet->destination_port);
	}
	value = bpf_map_lookup_elem(&cirri_nat, &key);
	if (!value || value->expires < now)
		return NAT_NONE;
	nat_touch(value, packet, true, now);
	*frontend = value->frontend;
	to.address = value->address;
	to.port = value->port;
	error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : NAT_DONE;
}

/* Has an answer go to who the node sent the connection for.  NAT_DONE: *frontend* is that by which it came, and
 * whose name the answer has to have (0: none, it is a pod); NAT_NONE: it is no such answer; or a drop reason.
 */
static __always_inline int nat_back(struct __sk_buff *skb, struct packet *packet, __u32 *frontend)
{
	return packet->flags & PACKET_ICMP_ERROR ? nat_error_back(skb, packet, frontend)
						 : nat_answer_back(skb, packet, frontend);
}
