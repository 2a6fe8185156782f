/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* conntrack: connections seen by this node, and the verdict given to each.
 * One entry serves both directions: the key holds the two ends in numeric order.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_rest.c (which cirri.datapath runs to remove what has expired).
 * Read by bpf_xdp.c, cirri.cli.
 * Mirror: libs/cirri/layout/conntrack.py
 */
#pragma once
#include "address.h"
#include "config.h"
#include "map.h"
#include "packet.h"

struct ct_key {
	union address low;	/* the smaller end (address, then port, as the CPU compares them) */
	union address high;
	__be16 low_port;	/* ICMP: the end that asks has the identifier, the other one the type asked */
	__be16 high_port;
	__u8   protocol;
	__u8   leg;		/* 1: of a proxy to the server, which may use the client's very port */
	__u16  pad;
};

enum ct_flag {
	CT_FROM_HIGH = 1,	/* the end stored as `high` opened the connection */
	CT_SEEN_REPLY = 2,
	CT_FIN_FORWARD = 4,
	CT_FIN_REPLY = 8,
	CT_RESET = 16,
	CT_ESTABLISHED = 32,	/* TCP: handshake complete */
	CT_AUDITED_INGRESS = 64,	/* only audit lets it in: it was told, and is not told again */
	CT_AUDITED_EGRESS = 128,
	CT_MASQUERADED = 256,	/* forwarded under an address of the node: nobody's policy is asked */
	CT_REDIRECTED = 512,	/* it ends in a proxy of this node */
	CT_UPSTREAM = 1024,	/* an ingress proxy goes on to its pod: nobody's policy is asked again */
};

/* From enum policy_direction, which are bits too. */
#define CT_AUDITED(directions)	((directions) * CT_AUDITED_INGRESS)


/* What each packet needs stands in one cache line. */
struct ct_value {
	__u64 expires;		/* ns, CLOCK_MONOTONIC */
	__u64 forward_untold;	/* counted since the last event of this direction: see CT_ONE */
	__u64 reply_untold;
	__u32 epoch;		/* struct runtime.epoch when the verdict was taken */
	__u32 flags;		/* enum ct_flag */
	__u32 frontend;		/* struct lb_service.frontend under which the end that opened it knows the other; 0: none */
	__u32 forward_told;	/* when that event was, in ct_tick() */
	__u32 reply_told;
	__u8  forward_seen;	/* TCP flags of packets with such events */
	__u8  reply_seen;
	__u16 pad;
	__u64 forward_packets;	/* that events told */
	__u64 forward_bytes;
	__u64 reply_packets;
	__u64 reply_bytes;
	__u32 source_identity;	/* of the end that opened the connection */
	__u32 destination_identity;
	__u32 egress_rule;	/* provenance of the verdicts; 0: not enforced or not asked here */
	__u32 ingress_rule;
};

/* Packets and bytes in one number, so that one addition counts both, whoever else counts: packets in the upper 24 bits.
 * From CT_MANY on it is told whatever else is the case, long before one runs into the other.
 */
#define CT_ONE		(1ull << 40)
#define CT_PACKETS(sum)	((sum) >> 40)
#define CT_BYTES(sum)	((sum) & (CT_ONE - 1))
#define CT_MANY		(1ull << 63 | 1ull << 39)
#define CT_LONG_AGO	(1u << 31)	/* ticks: for a direction of which nothing was told yet */
#define CT_TICK_SHIFT	20	/* ns of a tick, as a power of two: a millisecond, nearly */

MAP(cirri_ct, LRU_HASH, struct ct_key, struct ct_value, 131072);

#define CT_CLOSED(flags) \
	(((flags) & CT_RESET) || ((flags) & (CT_FIN_FORWARD | CT_FIN_REPLY)) == (CT_FIN_FORWARD | CT_FIN_REPLY))

/* Sets the key of *packet*'s connection; true if the source is the end stored as `high`.
 * That ICMP ports depend on who asks keeps two hosts that ask each other with one identifier apart.
 */
static __always_inline bool ct_key_set(struct ct_key *key, const struct packet *packet)
{
	__be16 source_port = packet->source_port, destination_port = packet->destination_port;
	__u64 s0 = packet->source.halves[0], d0 = packet->destination.halves[0];
	__u64 s1 = packet->source.halves[1], d1 = packet->destination.halves[1];
	bool high;

	if (packet->flags & PACKET_ICMP_REPLY) {
		source_port = bpf_htons(icmp_request_type(packet->protocol, bpf_ntohs(destination_port)));
		destination_port = packet->source_port;
	}
	high = s0 != d0 ? s0 > d0 : s1 != d1 ? s1 > d1 : source_port > destination_port;
	key->low.halves[0] = high ? d0 : s0;
	key->low.halves[1] = high ? d1 : s1;
	key->high.halves[0] = high ? s0 : d0;
	key->high.halves[1] = high ? s1 : d1;
	key->low_port = high ? destination_port : source_port;
	key->high_port = high ? source_port : destination_port;
	*(__u32 *)&key->protocol = 0;	/* and pad */
	key->protocol = packet->protocol;
	return high;
}

/* Makes of *packet* the one that opened the connection it answers, as far as policy asks. */
static __always_inline void ct_reverse(struct packet *packet)
{
	union address source = packet->source;
	__be16 port = packet->source_port;

	packet->source = packet->destination;
	packet->destination = source;
	packet->flags |= PACKET_AGAIN;
	if (packet->flags & PACKET_ICMP_REPLY) {
		packet->destination_port =
			bpf_htons(icmp_request_type(packet->protocol, bpf_ntohs(packet->destination_port)));
		return;
	}
	packet->source_port = packet->destination_port;
	packet->destination_port = port;
}

/* The packet that opened *packet*'s connection; *packet* itself unless it is a *reply*. */
static __always_inline void ct_forward(struct packet *forward, const struct packet *packet, bool reply)
{
	__builtin_memcpy(forward, packet, sizeof(*forward));
	forward->flags |= PACKET_AGAIN;
	if (reply)
		ct_reverse(forward);
}

static __always_inline __u64 ct_lifetime_ns(__u8 protocol, __u32 flags)
{
	const __u64 second = 1000000000;

	if (protocol != IPPROTO_TCP)
		return ct_timeout_any_s * second;
	if (CT_CLOSED(flags))
		return ct_timeout_tcp_close_s * second;
	return (flags & CT_ESTABLISHED ? ct_timeout_tcp_s : ct_timeout_tcp_syn_s) * second;
}

/* Is *packet* part of the connection in *value*?  If not, it is judged as the first of a new one. */
static __always_inline bool ct_continues(const struct ct_value *value, const struct packet *packet,
					 bool reply, __u64 now)
{
	if (value->expires < now)
		return false;
	/* A SYN opens anew what is closed, and never continues what the other end opened:
	 * else a server could connect back to its client unasked.
	 */
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return !reply && !CT_CLOSED(value->flags);
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6)
		return reply == !!(packet->flags & PACKET_ICMP_REPLY);
	return true;
}

/* What *packet* tells about its connection; the flags that are new with it. */
static __always_inline __u32 ct_learn(__u32 flags, const struct packet *packet, bool reply)
{
	__u32 learned = reply ? CT_SEEN_REPLY : 0;

	if (packet->tcp_flags & TCP_RST)
		learned |= CT_RESET;
	if (packet->tcp_flags & TCP_FIN)
		learned |= reply ? CT_FIN_REPLY : CT_FIN_FORWARD;
	if (!reply && (flags & CT_SEEN_REPLY) && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		learned |= CT_ESTABLISHED;
	return learned & ~flags;
}

static __always_inline __u32 ct_tick(__u64 now)
{
	return now >> CT_TICK_SHIFT;
}

static __always_inline __u64 *ct_untold(struct ct_value *value, bool reply)
{
	return reply ? &value->reply_untold : &value->forward_untold;
}

/* What is untold of the connection *before*, on the same ports, is told with the next one's; *same*: the same end opened both. */
static __always_inline void ct_inherit(struct ct_value *value, struct ct_value *before, bool same)
{
	__u64 forward = __sync_lock_test_and_set(&before->forward_untold, 0);
	__u64 reply = __sync_lock_test_and_set(&before->reply_untold, 0);

	value->forward_untold += same ? forward : reply;
	value->reply_untold += same ? reply : forward;
}

/* The directions (enum policy_direction) in which only audit lets the connection pass. */
static __always_inline __u32 ct_audited(const struct ct_value *value)
{
	return (value->flags & CT_AUDITED(3)) / CT_AUDITED_INGRESS;
}

static __always_inline void ct_audited_set(struct ct_value *value, __u32 directions)
{
	if (ct_audited(value) == directions)
		return;
	__sync_fetch_and_and(&value->flags, ~CT_AUDITED(3));
	__sync_fetch_and_or(&value->flags, CT_AUDITED(directions));
}

/* Only what can have an answer, or more packets like it, is worth an entry. */
static __always_inline bool ct_wanted(const struct packet *packet)
{
	return !(packet->flags & (PACKET_ICMP_ERROR | PACKET_ICMP_REPLY)) && !(packet->tcp_flags & TCP_RST);
}
