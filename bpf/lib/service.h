/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* service: Services for packets.  What a client sends to a frontend goes to a backend; what that answers comes from
 * the frontend.  Policy and conntrack see the backend's address, and the client's.
 */
#pragma once
#include "config.h"
#include "dsr.h"
#include "lb.h"
#include "reject.h"
#include "rewrite.h"
#include "verdict.h"

enum { NOT_SERVED = 0, SERVED = 1 };	/* no action has the number of the latter */

/* What is known of a client's packet to a frontend. */
struct choice {
	struct lb_flow_key key;
	struct lb_flow flow;	/* its backend */
	__u32 frontend;		/* struct lb_service.frontend */
	__u32 flags;		/* enum lb_flag */
	struct end to;		/* what is written into the packet */
};

SCRATCH(cirri_choice, struct choice);

static __always_inline struct choice *choice_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cirri_choice, &zero);
}

static __always_inline bool service_follows(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/* The frontend that *packet* is for, as *scope* sees it; NULL: it is for none. */
static __always_inline const struct lb_service *service_asked(struct packet *packet, enum lb_scope scope)
{
	if (!service_follows(packet->protocol))
		return NULL;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) && fragment_resolve(packet))
		return NULL;
	return lb_service_lookup(&packet->destination, packet->destination_port, packet->protocol, scope);
}

/* May *packet*'s source talk to the frontend? */
static __always_inline bool service_lets_in(const struct lb_service *service, const union address *source)
{
	struct lb_range_key key;
	bool listed;

	if (!(service->flags & (LB_RANGES_ALLOW | LB_RANGES_DENY)))
		return true;
	key.prefix_len = 32 + 128;
	key.frontend = service->frontend;
	key.address = *source;
	listed = bpf_map_lookup_elem(&cirri_lb_ranges, &key);
	return service->flags & LB_RANGES_DENY ? !listed : listed;
}

/* Does the flow lead to a backend that may have this packet?  SYN: one that takes connections. */
static __always_inline bool service_flow_holds(struct lb_flow *flow, const struct lb_service *service,
					       const struct packet *packet, __u64 now, __u32 epoch,
					       struct lb_backend *backend)
{
	bool opens = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	__u32 state;

	if (flow->expires < now)
		return false;
	backend->address = flow->address;
	backend->port = flow->port;
	if (flow->epoch == epoch && !opens)
		return true;
	state = lb_state(service->frontend, backend);
	if (!state || (opens && state != LB_TAKING))
		return false;
	flow->epoch = epoch;
	return true;
}

/* How long a connection is remembered after *packet* of its client.  One that is only opened: as conntrack does, and
 * so that XDP leaves its handshake to conntrack.
 */
static __always_inline __u64 service_lifetime_ns(const struct packet *packet)
{
	bool opens = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;

	return ct_lifetime_ns(packet->protocol, opens ? 0 : CT_ESTABLISHED);
}

/* Which backend *packet* goes to: the one that its connection has, or one chosen now; choice_get() tells.
 * 0, or why it is dropped.
 */
GLOBAL int service_backend(const struct lb_service *service, const struct packet *packet)
{
	struct choice *choice = choice_get();
	struct lb_backend backend = {};
	__u64 now = bpf_ktime_get_coarse_ns(), expires;
	__u32 epoch = runtime_lb_epoch(), number;
	struct lb_flow_key *key;
	struct lb_flow *flow;

	if (!service || !packet || !choice)
		return DROP_INVALID;
	choice->frontend = service->frontend;
	choice->flags = service->flags;
	key = &choice->key;
	key->client = packet->source;
	key->address = packet->destination;
	key->client_port = packet->source_port;
	key->port = packet->destination_port;
	key->protocol = packet->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
	expires = now + service_lifetime_ns(packet);
	flow = bpf_map_lookup_elem(&cirri_lb_flows, key);
	if (flow && service_flow_holds(flow, service, packet, now, epoch, &backend)) {
		flow->expires = expires;
		choice->flow = *flow;
		return 0;
	}
	if (!service_lets_in(service, &packet->source))
		return DROP_SOURCE_RANGE;
	number = lb_number(service, &packet->source, packet->source_port, packet->destination_port, packet->protocol);
	if (!lb_choose(service, &packet->source, number, &backend))
		return DROP_NO_BACKEND;
	choice->flow.address = backend.address;
	choice->flow.expires = expires;
	choice->flow.epoch = epoch;
	choice->flow.port = backend.port;
	choice->flow.nat_port = 0;
	bpf_map_update_elem(&cirri_lb_flows, key, &choice->flow, BPF_ANY);
	return 0;
}

/* What a pod that reaches itself by a Service sees as the client: an address that nobody has, or its stack would
 * answer itself without us.  169.254.42.1, fd42::1.
 */
static __always_inline void self_address(union address *address, __u8 family)
{
	if (family == 4) {
		address_set4(address, bpf_htonl(0xa9fe2a01));
	} else {
		address->words[0] = bpf_htonl(0xfd420000);
		address->words[1] = 0;
		address->words[2] = 0;
		address->words[3] = bpf_htonl(1);
	}
}

/* Does what comes to a pod say that the pod itself sent it?  Only from_pod may say so, past this: such
 * connections are exempt from policy.
 */
static __always_inline bool service_is_forged(const struct passage *passage)
{
	union address self;

	if (!(passage->switches & RUNTIME_POD_SERVICES))
		return false;
	self_address(&self, passage->packet.family);
	return address_equal(&passage->packet.source, &self);
}

/* Is a pod of this node, or the node itself, under *address*? */
static __always_inline bool service_is_here(const union address *address, __u32 epoch)
{
	const union address *node;

	if (endpoint_recall(address, epoch, END_RECEIVER))
		return true;
	node = hop_lookup(address, epoch);
	return (!node || address_is_zero(node)) && ipcache_identity(address) == IDENTITY_HOST;
}

/* A client's ICMP error about what a backend answered: its receiver is that backend. */
GLOBAL int service_error_to_backend(struct __sk_buff *skb, struct passage *passage)
{
	const struct lb_service *service;
	struct packet *packet, inner = {};
	struct lb_flow_key key = {};
	const struct lb_flow *flow;
	struct end to = {};
	int error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	if (!icmp_inner(skb, packet, &inner) || !service_follows(inner.protocol) ||
	    !address_equal(&inner.source, &packet->destination))
		return NOT_SERVED;
	key.client = inner.destination;
	key.address = inner.source;
	key.client_port = inner.destination_port;
	key.port = inner.source_port;
	key.protocol = inner.protocol;
	flow = bpf_map_lookup_elem(&cirri_lb_flows, &key);
	if (!flow)
		return NOT_SERVED;
	to.address = flow->address;
	to.port = flow->port;
	if (packet->flags & PACKET_FROM_NETWORK) {
		service = lb_service_lookup(&inner.source, inner.source_port, inner.protocol, LB_EXTERNAL);
		passage->frontend = service ? service->frontend : 0;
	}
	error = rewrite_inner(skb, packet, &inner, &to, REWRITE_SOURCE);
	if (!error)
		error = rewrite_end(skb, packet, &to, REWRITE_DESTINATION);
	return error ? error : SERVED;
}

/* Does the packet travel to who knows the other end by a frontend?  To be asked once its verdict was taken. */
static __always_inline bool service_is_answer(const struct passage *passage)
{
	return passage->frontend && (passage->reply || passage->packet.flags & PACKET_ICMP_ERROR);
}

/* What a backend sends on a connection that came by a frontend comes from that; ICMP errors about what was sent
 * to it are about that, and come from it if they are the backend's own.  0, or a drop reason.
 */
GLOBAL int service_answer(struct __sk_buff *skb, struct passage *passage)
{
	const struct lb_frontend *frontend;
	struct packet *packet, inner = {};
	struct end to = {};
	__u32 number;
	bool is_error;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	number = passage->frontend;
	is_error = packet->flags & PACKET_ICMP_ERROR;
	if (is_error && !icmp_inner(skb, packet, &inner))
		return DROP_INVALID;
	if (number != LB_FRONTEND_DSR)
		frontend = bpf_map_lookup_elem(&cirri_lb_frontends, &number);
	else
		frontend = is_error ? dsr_known(&inner, true) : dsr_known(packet, false);
	if (!frontend)
		return DROP_NO_BACKEND;	/* it is not served any more, and nobody else's answer is waited for */
	to.address = frontend->address;
	to.port = frontend->port;
	if (is_error && rewrite_inner(skb, packet, &inner, &to, REWRITE_DESTINATION))
		return DROP_INVALID;
	if (is_error && !address_equal(&inner.destination, &packet->source))
		return 0;	/* some router's */
	return rewrite_end(skb, packet, &to, REWRITE_SOURCE);
}

/* What the node sends while nobody is asked about it: an answer of a process of its own comes from the frontend.
 * 0, or a drop reason.
 */
GLOBAL int service_node_answer(struct __sk_buff *skb, struct passage *passage)
{
	const struct packet *packet;
	struct ct_value *value;
	struct ct_key key;

	if (!passage)
		return DROP_INVALID;
	packet = &passage->packet;
	if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT) && fragment_resolve(&passage->packet))
		return 0;
	passage->now = bpf_ktime_get_coarse_ns();
	passage->latest = passage->epoch;
	passage->reply = 0;
	if (packet->flags & PACKET_ICMP_ERROR)
		return icmp_is_related(skb, passage, NULL) && passage->frontend ? service_answer(skb, passage) : 0;
	passage->high = ct_key_set(&key, packet);
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (!value || !value->frontend)
		return 0;
	passage->reply = passage->high != !!(value->flags & CT_FROM_HIGH);
	if (!passage->reply || !ct_continues(value, packet, true, passage->now))
		return 0;
	passage->key = key;
	passage_count(skb, passage, value);
	passage->frontend = value->frontend;
	return service_answer(skb, passage);
}
