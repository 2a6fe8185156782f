// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* lb: sends datagrams of many clients to many Services as fast as it can (BPF_F_TEST_XDP_LIVE_FRAMES), and what
 * the cheapest receivers make of them.  One program; its role is set before it is loaded.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum role { GENERATE, ABSORB, TURN, LOOKUP };

const volatile __u32 role = 0;
const volatile __u32 flows = 1, services = 1;
const volatile __u8 from[ETH_ALEN] = {}, to[ETH_ALEN] = {};

/* Packets that each role has had. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 4);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_lb SEC(".maps");

/* As large as cirri_lb_flows and its entries. */
struct flow_key {
	__u32 words[10];
};

struct flow {
	__u64 words[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(max_entries, 131072);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_flows SEC(".maps");

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

static __always_inline void copy(__u8 *target, const volatile __u8 *source)
{
	for (int i = 0; i < ETH_ALEN; i++)
		target[i] = source[i];
}

/* The datagram of flow number *flow*, 64 bytes with the frame's own checksum on a wire. */
static __always_inline void make(struct frame *frame, __u32 flow)
{
	__be32 client = bpf_htonl(0x0ac80000 + flow);				/* 10.200.0.0 and on */
	__be32 service = bpf_htonl(0x0a640000 + flow % services);		/* 10.100.0.0 and on */
	__be16 port = bpf_htons(1024 + flow % 32768);
	__u64 addresses = (__u64)client + service;
	__u16 length = sizeof(struct udphdr) + 18;

	copy(frame->eth.h_dest, to);
	copy(frame->eth.h_source, from);
	frame->eth.h_proto = bpf_htons(ETH_P_IP);
	*(__u16 *)&frame->ip = bpf_htons(0x4500);
	frame->ip.tot_len = bpf_htons(sizeof(struct iphdr) + length);
	frame->ip.id = 0;
	frame->ip.frag_off = bpf_htons(0x4000);
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_UDP;
	frame->ip.saddr = client;
	frame->ip.daddr = service;
	frame->ip.check = ~folded(addresses + bpf_htons(0x4500) + bpf_htons(sizeof(struct iphdr) + length) +
				  bpf_htons(0x4000) + bpf_htons(64 << 8 | IPPROTO_UDP));
	frame->udp.source = port;
	frame->udp.dest = bpf_htons(80);
	frame->udp.len = bpf_htons(length);
	/* Its 18 bytes of data are zero. */
	frame->udp.check = ~folded(addresses + bpf_htons(IPPROTO_UDP) + bpf_htons(length) + port + bpf_htons(80) +
				   bpf_htons(length));
}

static __always_inline void turn(struct frame *frame)
{
	__u8 was[ETH_ALEN];

	__builtin_memcpy(was, frame->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_dest, frame->eth.h_source, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_source, was, ETH_ALEN);
}

/* The least that whoever remembers connections does: one lookup.  Those that are new are remembered. */
static __always_inline bool known(const struct frame *frame)
{
	struct flow_key key = {{ 0, 0, bpf_htonl(0xffff), frame->ip.saddr, 0, 0, bpf_htonl(0xffff), frame->ip.daddr,
				 *(const __u32 *)&frame->udp, frame->ip.protocol }};
	struct flow fresh = {};

	return bpf_map_lookup_elem(&bench_flows, &key) || !bpf_map_update_elem(&bench_flows, &key, &fresh, BPF_ANY);
}

SEC("xdp")
int lb(struct xdp_md *ctx)
{
	struct frame *frame = (void *)(long)ctx->data;
	__u32 key = role;
	__u64 *count = bpf_map_lookup_elem(&bench_lb, &key);

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end || !count)
		return XDP_DROP;
	(*count)++;
	switch (role) {
	case GENERATE:
		make(frame, (__u32)*count * 7919 % flows);	/* no two in a row are neighbours in memory */
		return XDP_TX;
	case LOOKUP:
		if (!known(frame))
			return XDP_DROP;
		/* fall through */
	case TURN:
		turn(frame);
		return XDP_TX;
	}
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
