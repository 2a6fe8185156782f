/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* vxlan: tunnels' packets made and opened by programs, so that ordinary ones pass neither the tunnel's device nor the
 * node's stack.  What these functions leave alone is the device's, which says the same on the wire.
 */
#pragma once
#include <linux/if_ether.h>
#include <linux/udp.h>
#include "csum.h"
#include "endpoint.h"
#include "host.h"
#include "ipcache.h"
#include "overlay.h"
#include "packet.h"
#include "runtime.h"

#define VXLAN_VNI_IS_THERE	bpf_htonl(0x08000000)
#define VXLAN_SOURCE_PORTS	0xc000	/* the first; RFC 7348 wants dynamic ports */
#define VXLAN_DECAP_L3_IPV6	(1ull << 8)	/* BPF_F_ADJ_ROOM_...; kernels before 6.3 refuse it */
#define ECN_MASK		3
#define ECN_CE			3	/* congestion experienced */
#define ECN_ECT0		2

/* What stands before the Ethernet header of a packet that travels in a tunnel. */
struct vxlan_head {
	struct iphdr ip;
	struct udphdr udp;
	__be32 flags;
	__be32 vni;		/* in the upper 24 bits */
};

#define VXLAN_BYTES (sizeof(struct vxlan_head) + ETH_HLEN)

/* May programs make and open tunnels' packets, of those that they know?  With the host firewall the tunnel's own packets
 * are judged, by to_network and from_network.
 */
static __always_inline bool vxlan_is_ours(const struct runtime *runtime)
{
	return runtime->tunnel_port && !(runtime->flags & RUNTIME_HOST_FIREWALL) && !address_is_zero(&runtime->nat4);
}

/* What a NIC or GRO made one of several is handed on as such, if it is TCP: the rest of UDP's kind would have to be
 * told apart from the tunnel's own.
 */
static __always_inline bool vxlan_takes(const struct __sk_buff *skb, __u8 protocol)
{
	return !skb->gso_size || protocol == IPPROTO_TCP;
}

/* Both halves of each word are added, in whatever order: the sum is the same (RFC 1071, 2). */
static __always_inline __sum16 vxlan_check(const struct iphdr *ip)
{
	const __be32 *words = (const void *)ip;

	return csum_fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

/* The two bits by which routers tell of congestion, as RFC 6040 wants them outside of what has *ip*. */
static __always_inline __u8 vxlan_ecn(const __u8 *ip, __u8 family)
{
	__u8 ecn = (family == 4 ? ip[1] : ip[1] >> 4) & ECN_MASK;

	return ecn == ECN_CE ? ECN_ECT0 : ecn;
}

/* Puts what a pod sends into a packet to *node*, as sent by *identity*; 0: nothing was done; 1, or a drop reason. */
GLOBAL int vxlan_put(struct __sk_buff *skb, struct packet *packet, const union address *node, __u32 identity)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
			    BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	const struct runtime *runtime = runtime_get();
	struct vxlan_head *head;
	struct ethhdr *outer;
	__u32 length, hash;
	__u8 *inner;

	if (!packet || !node || !runtime)
		return 0;
	length = skb->len - ETH_HLEN + VXLAN_BYTES;
	if (length > 0xffff)
		return 0;
	hash = bpf_get_hash_recalc(skb);
	if (bpf_skb_adjust_room(skb, VXLAN_BYTES, BPF_ADJ_ROOM_MAC, flags))
		return 0;
	outer = (void *)(long)skb->data;
	head = (void *)(outer + 1);
	inner = (void *)(head + 1);
	if ((void *)(inner + ETH_HLEN + 2) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	__builtin_memcpy(inner, outer, ETH_HLEN);
	outer->h_proto = bpf_htons(ETH_P_IP);
	head->ip.version = 4;
	head->ip.ihl = 5;
	head->ip.tos = vxlan_ecn(inner + ETH_HLEN, packet->family);
	head->ip.tot_len = bpf_htons(length);
	head->ip.id = bpf_get_prandom_u32();	/* routers may cut it */
	head->ip.frag_off = 0;
	head->ip.ttl = TUNNEL_TTL;
	head->ip.protocol = IPPROTO_UDP;
	head->ip.check = 0;
	head->ip.saddr = runtime->nat4.words[3];
	head->ip.daddr = node->words[3];
	head->ip.check = vxlan_check(&head->ip);
	head->udp.source = bpf_htons(VXLAN_SOURCE_PORTS | (__u16)(hash ^ hash >> 16));
	head->udp.dest = runtime->tunnel_port;
	head->udp.len = bpf_htons(length - sizeof(head->ip));
	head->udp.check = 0;
	head->flags = VXLAN_VNI_IS_THERE;
	head->vni = overlay_tells(identity) ? bpf_htonl(identity << 8) : 0;
	packet->grown = VXLAN_BYTES;
	return 1;
}

/* Is *packet*, which came by the uplink, one of a tunnel that ends here?  Not yet: from whom. */
static __always_inline bool vxlan_is_one(const struct packet *packet)
{
	const struct runtime *runtime;

	if (packet->protocol != IPPROTO_UDP || packet->family != 4)
		return false;
	runtime = runtime_get();
	return runtime && packet->destination_port == runtime->tunnel_port && vxlan_is_ours(runtime) &&
	       address_equal(&packet->destination, &runtime->nat4);
}

/* Is the head as our nodes make it, around a whole packet of *length* bytes?  What routers marked or cut is not. */
static __always_inline bool vxlan_is_plain(const struct vxlan_head *head, __u32 length)
{
	return *(const __u8 *)head == 0x45 && !vxlan_check(&head->ip) && (head->ip.tos & ECN_MASK) != ECN_CE &&
	       !(head->ip.frag_off & bpf_htons(IP4_MORE_FRAGMENTS | IP4_OFFSET)) &&
	       bpf_ntohs(head->ip.tot_len) == length && bpf_ntohs(head->udp.len) == length - sizeof(head->ip) &&
	       !head->udp.check && head->flags == VXLAN_VNI_IS_THERE && !(head->vni & bpf_htonl(0xff));
}

/* The receiver of the packet behind *eth*, and its family; 0: it is none of IP, in its last hop, or not whole. */
static __always_inline __u8 vxlan_receiver(struct __sk_buff *skb, const struct ethhdr *eth, union address *receiver)
{
	const struct iphdr *ip4 = (const void *)(eth + 1);
	const struct ipv6hdr *ip6 = (const void *)(eth + 1);
	void *end = (void *)(long)skb->data_end;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		address_set4(receiver, ip4->daddr);
		return ip4->ttl > 1 && vxlan_takes(skb, ip4->protocol) ? 4 : 0;
	}
	if (eth->h_proto != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > end)
		return 0;
	__builtin_memcpy(receiver, &ip6->daddr, sizeof(*receiver));
	return ip6->hop_limit > 1 && vxlan_takes(skb, ip6->nexthdr) ? 6 : 0;
}

/* Opens a tunnel's packet from a node that we know, if a pod of this node is to get what is in it: that is *packet*
 * then (PACKET_FROM_OVERLAY), and *identity* who the node says sent it (0: it does not).  0, or why what is in it is
 * dropped.  The device would open the rest.
 */
GLOBAL int vxlan_take(struct __sk_buff *skb, struct packet *packet, __u32 *identity, __u32 epoch)
{
	const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	const __u32 wanted = L3_OFFSET + VXLAN_BYTES + sizeof(struct iphdr);
	const struct endpoint *endpoint;
	const struct vxlan_head *head;
	union address receiver;
	struct ethhdr *eth;
	__be16 ethertype;
	__u32 vni;
	__u8 family;

	if (!packet || !identity || !hop_is_node(&packet->source, epoch))
		return 0;
	if ((void *)(long)skb->data + wanted > (void *)(long)skb->data_end &&
	    bpf_skb_pull_data(skb, wanted + sizeof(struct ipv6hdr) - sizeof(struct iphdr)))
		return 0;
	head = (void *)(long)skb->data + L3_OFFSET;
	if ((void *)head + wanted - L3_OFFSET > (void *)(long)skb->data_end ||
	    !vxlan_is_plain(head, skb->len - L3_OFFSET))
		return 0;
	vni = bpf_ntohl(head->vni) >> 8;
	eth = (void *)(head + 1);
	ethertype = eth->h_proto;
	family = vxlan_receiver(skb, eth, &receiver);
	if (!family)
		return 0;
	endpoint = endpoint_recall(&receiver, epoch, END_RECEIVER);
	if (!endpoint || endpoint_is_host(endpoint))
		return 0;
	if (bpf_skb_adjust_room(skb, -(__s32)VXLAN_BYTES, BPF_ADJ_ROOM_MAC,
				family == 4 ? flags : flags | VXLAN_DECAP_L3_IPV6))
		return 0;
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);	/* the tunnel's own is one of those that a NIC may have seen */
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return DROP_INVALID;
	eth->h_proto = ethertype;
	*identity = overlay_tells(vni) ? vni : 0;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->flags = PACKET_FROM_NETWORK | PACKET_FROM_OVERLAY;
	packet_pull(skb);
	return packet_parse(skb, packet, ethertype);
}
