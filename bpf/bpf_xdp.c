/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The device to the other nodes, before the kernel makes anything of a packet: what bpf_node.c sends back out of
 * it anyhow, clients' packets to a backend of another node and what that answers, turns round here.
 *
 * Nothing is decided here, and nothing is kept alive: a connection takes this way while a packet of it went the
 * other one within the last second, and was let through.  What opens or ends a connection, is a fragment or carries
 * options always goes there.
 */
#include "lib/conntrack.h"
#include "lib/ipcache.h"
#include "lib/lb.h"
#include "lib/metrics.h"
#include "lib/natmap.h"
#include "lib/nexthop.h"
#include "lib/packet.h"
#include "lib/rewrite.h"
#include "lib/runtime.h"

#define INGRESS 1		/* POLICY_INGRESS; lib/policy.h would bring its maps along */
#define FRESH_NS 1000000000ull	/* so long after a packet went the other way this one is open */

/* Where the headers of the packet at hand are. */
struct frame {
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	__be16 *ports;		/* source and destination */
	__sum16 *checksum;	/* L4's */
};

/* Was what expires at *expires* kept alive within the last second, when it was given *lifetime*? */
static __always_inline bool is_fresh(__u64 expires, __u64 lifetime, __u64 now)
{
	return expires + FRESH_NS >= now + lifetime;
}

/* Are *length* bytes of a packet there? */
static __always_inline bool is_there(struct xdp_md *ctx, __u32 length)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	/* Not "data + length": to Linux 6.1 a number whose bytes were swapped may be any. */
	return length <= (__u64)(end - data) || length <= bpf_xdp_get_buff_len(ctx);
}

static __always_inline bool find_l4(struct frame *frame, struct packet *packet, void *l4, __u32 length, void *end)
{
	struct { __be16 source, destination; } *ports = l4;
	struct l4_header *tcp = l4;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		if (l4 + 20 > end || length < 20 || tcp->data_offset >> 4 < 5)
			return false;
		packet->tcp_flags = tcp->tcp_flags;
		if (packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))
			return false;
		frame->checksum = l4 + 16;
		break;
	case IPPROTO_UDP:
		if (l4 + 8 > end || length < 8)
			return false;
		frame->checksum = l4 + 6;
		break;
	default:
		return false;
	}
	frame->ports = l4;
	packet->source_port = ports->source;
	packet->destination_port = ports->destination;
	return true;
}

/* Is it a packet that may turn round here?  Then *frame* and *packet* are filled. */
static __always_inline bool find4(struct xdp_md *ctx, struct frame *frame, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(long)ctx->data + L3_OFFSET;
	__u32 length;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->ttl <= 1 ||
	    ip->frag_off & bpf_htons(IP4_MORE_FRAGMENTS | IP4_OFFSET))
		return false;
	length = bpf_ntohs(ip->tot_len);
	if (length < sizeof(*ip) || !is_there(ctx, L3_OFFSET + length))
		return false;
	packet->family = 4;
	packet->protocol = ip->protocol;
	address_set4(&packet->source, ip->saddr);
	address_set4(&packet->destination, ip->daddr);
	frame->ip4 = ip;
	return find_l4(frame, packet, ip + 1, length - sizeof(*ip), end);
}

static __always_inline bool find6(struct xdp_md *ctx, struct frame *frame, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = (void *)(long)ctx->data + L3_OFFSET;
	__u32 length;

	if ((void *)(ip + 1) > end || ip->version != 6 || ip->hop_limit <= 1)
		return false;
	length = bpf_ntohs(ip->payload_len);
	if (!is_there(ctx, L3_OFFSET + sizeof(*ip) + length))
		return false;
	packet->family = 6;
	packet->protocol = ip->nexthdr;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	frame->ip6 = ip;
	return !address_is4(&packet->source) && !address_is4(&packet->destination) &&
	       find_l4(frame, packet, ip + 1, length, end);
}

/* Where a client's packet goes, and from whom; false if that has to be asked elsewhere. */
static __always_inline bool turn_request(const struct packet *packet, const struct runtime *runtime, __u64 now,
					 struct end *from, struct end *to)
{
	const struct lb_flow *flow;
	struct lb_flow_key key = {};

	key.client = packet->source;
	key.address = packet->destination;
	key.client_port = packet->source_port;
	key.port = packet->destination_port;
	key.protocol = packet->protocol;
	flow = bpf_map_lookup_elem(&cirri_lb_flows, &key);
	if (!flow || flow->epoch != runtime->lb_epoch)
		return false;
	if (!is_fresh(flow->expires, ct_lifetime_ns(packet->protocol, CT_ESTABLISHED), now))
		return false;
	to->address = flow->address;
	to->port = flow->port;
	from->address = packet->family == 4 ? runtime->nat4 : runtime->nat6;
	from->port = flow->nat_port;
	if (from->port != LB_DIRECT)
		return from->port;	/* 0: to a pod of this node */
	/* Only TCP need not tell each time for whom the backend's node answers. */
	from->address = packet->source;
	from->port = packet->source_port;
	return packet->protocol == IPPROTO_TCP;
}

/* The same of an answer to a connection that left under our name. */
static __always_inline bool turn_answer(const struct packet *packet, __u64 now, struct end *from, struct end *to)
{
	const struct lb_frontend *frontend;
	const struct nat_value *value;
	struct nat_key key = {};
	__u32 number;

	key.remote = packet->source;
	key.remote_port = packet->source_port;
	key.protocol = packet->protocol;
	nat_key_back(&key, &packet->destination, packet->destination_port);
	value = bpf_map_lookup_elem(&cirri_nat, &key);
	if (!value || !value->frontend)
		return false;
	if (!is_fresh(value->expires, ct_lifetime_ns(packet->protocol, value->flags), now))
		return false;
	number = value->frontend;
	frontend = bpf_map_lookup_elem(&cirri_lb_frontends, &number);
	if (!frontend)
		return false;
	to->address = value->address;
	to->port = value->port;
	from->address = frontend->address;
	from->port = frontend->port;
	return true;
}

/* What the sum over *was* gains when it is *now*. */
static __always_inline __u64 gain(const union address *was, const union address *now, __u32 first)
{
	__u64 sum = 0;
	__u32 i;

	for (i = first; i < 4; i++)
		sum += (__u64)(__u32)~was->words[i] + now->words[i];
	return sum;
}

/* Gives the packet its new ends, one hop less, and checksums that are right if they were. */
static __always_inline void turn(struct frame *frame, const struct packet *packet, const struct end *from,
				 const struct end *to, __u8 family)
{
	__u32 first = family == 4 ? 3 : 0;	/* the words before are alike in all IPv4 addresses */
	__u64 sum = gain(&packet->source, &from->address, first) + gain(&packet->destination, &to->address, first);
	__u16 check;

	if (family == 4) {
		frame->ip4->saddr = from->address.words[3];
		frame->ip4->daddr = to->address.words[3];
		frame->ip4->ttl--;
		frame->ip4->check = csum_fold(sum + (__u16)~frame->ip4->check + (__u16)~bpf_htons(0x0100));
	} else {
		__builtin_memcpy(&frame->ip6->saddr, &from->address, sizeof(from->address));
		__builtin_memcpy(&frame->ip6->daddr, &to->address, sizeof(to->address));
		frame->ip6->hop_limit--;
	}
	frame->ports[0] = from->port;
	frame->ports[1] = to->port;
	check = *frame->checksum;
	if (packet->protocol == IPPROTO_UDP && !check)
		return;		/* it had none */
	sum += (__u64)(__u16)~packet->source_port + from->port + (__u16)~packet->destination_port + to->port;
	check = csum_fold(sum + (__u16)~check);
	*frame->checksum = packet->protocol == IPPROTO_UDP && !check ? 0xffff : check;
}

/* *family*: a constant, so that there are two of all this. */
static __always_inline int handle(struct xdp_md *ctx, __u8 family)
{
	const struct runtime *runtime = runtime_get();
	__u64 now = bpf_ktime_get_coarse_ns();
	const struct nexthop *next;
	struct end from = {}, to = {};
	struct packet packet = {};
	struct frame frame = {};
	struct ethhdr *eth;

	if (!runtime || runtime->tunnel_ifindex)
		return XDP_PASS;
	if (!(family == 4 ? find4(ctx, &frame, &packet) : find6(ctx, &frame, &packet)))
		return XDP_PASS;
	if (!(nat_expected(&packet) ? turn_answer(&packet, now, &from, &to)
				    : turn_request(&packet, runtime, now, &from, &to)))
		return XDP_PASS;
	next = nexthop_lookup(ctx, &from.address, &to.address, family, now);
	if (!next)
		return XDP_PASS;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	turn(&frame, &packet, &from, &to, family);
	mac_copy(eth->h_dest, next->to);
	mac_copy(eth->h_source, next->source);
	metrics_count(0, INGRESS, bpf_xdp_get_buff_len(ctx));
	return XDP_TX;
}

SEC("xdp.frags")
int from_wire(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end || eth->h_dest[0] & 1)
		return XDP_PASS;
	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		return handle(ctx, 4);
	case bpf_htons(ETH_P_IPV6):
		return handle(ctx, 6);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
