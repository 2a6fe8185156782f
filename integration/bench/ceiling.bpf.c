// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* ceiling: the least that any program can do to bring a packet to a pod: one hash lookup by
 * address, then bpf_redirect_peer to a pod of this node or bpf_redirect_neigh to the node of
 * another.  No policy, no connection tracking, no events.  What Cirri costs beyond this is what
 * its features cost.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct where {
	__u32 ifindex;
	__u8  mac[6];
	__u8  node_mac[6];
	__u32 family;		/* of the other node's address; 0: the pod is here */
	__u32 hop[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u8[16]);
	__type(value, struct where);
	__uint(max_entries, 1024);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_pods SEC(".maps");

SEC("tc")
int ceiling(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	__u32 key[4] = {};

	if (data + sizeof(*eth) > end)
		return TC_ACT_OK;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + sizeof(*eth);
		if ((void *)(ip + 1) > end)
			return TC_ACT_OK;
		key[2] = bpf_htonl(0xffff);
		key[3] = ip->daddr;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + sizeof(*eth);
		if ((void *)(ip + 1) > end)
			return TC_ACT_OK;
		__builtin_memcpy(key, &ip->daddr, sizeof(key));
	} else {
		return TC_ACT_OK;
	}
	struct where *to = bpf_map_lookup_elem(&bench_pods, key);
	if (!to)
		return TC_ACT_OK;
	if (to->family) {
		struct bpf_redir_neigh hop = {.nh_family = to->family};

		__builtin_memcpy(hop.ipv6_nh, to->hop, sizeof(to->hop));
		return bpf_redirect_neigh(to->ifindex, &hop, sizeof(hop), 0);
	}
	__builtin_memcpy(eth->h_dest, to->mac, 6);
	__builtin_memcpy(eth->h_source, to->node_mac, 6);
	return bpf_redirect_peer(to->ifindex, 0);
}

char _license[] SEC("license") = "GPL";
