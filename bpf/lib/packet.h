/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* packet: what the programs know of a packet, for IPv4 and IPv6 alike.
 * Headers are read in place; what is not linear or not at a usual place is copied by a helper.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/in.h>
#include <linux/icmpv6.h>
#include <linux/pkt_cls.h>
#include "address.h"
#include "drop.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IP4_MORE_FRAGMENTS	0x2000
#define IP4_OFFSET		0x1fff
#define IP6_MORE_FRAGMENTS	0x0001
#define IP6_OFFSET		0xfff8
#define IP6_EXTENSIONS_MAX	6	/* extension headers that are followed */
#define L3_OFFSET		ETH_HLEN

#define AF_INET		2
#define AF_INET6	10

/* A function that the verifier checks once, by the types of its arguments, and not again on each
 * path that calls it.  Its pointers may be NULL for all the verifier knows, so they are looked at first.
 */
#define GLOBAL __noinline

/* linux/icmp.h would want the whole C library. */
enum icmp4_type {
	ICMP_ECHOREPLY = 0,
	ICMP_DEST_UNREACH = 3,
	ICMP_SOURCE_QUENCH = 4,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETERPROB = 12,
	ICMP_TIMESTAMP = 13,
	ICMP_TIMESTAMPREPLY = 14,
	ICMP_FRAG_NEEDED = 4,	/* a code of ICMP_DEST_UNREACH */
};

enum packet_flag {
	PACKET_FIRST_FRAGMENT = 1,
	PACKET_LATER_FRAGMENT = 2,	/* without ports of its own */
	PACKET_ICMP_ERROR = 4,		/* carries the head of the packet it is about */
	PACKET_ICMP_REPLY = 8,		/* answer to a request that names its identifier */
	PACKET_FRAG_NEEDED = 16,	/* ICMPv4 type 3 code 4 */
	PACKET_FROM_NETWORK = 32,	/* met on the uplink */
	PACKET_NEIGHBOUR = 64,		/* ICMPv6 that never leaves a link: ND, MLD */
	PACKET_AGAIN = 128,		/* stands for a connection that was judged before */
	PACKET_MASQUERADED = 256,	/* forwarded under an address of the node */
	PACKET_FROM_OVERLAY = 512,	/* met in the tunnel */
	PACKET_NAMES_FRONTEND = 1024,	/* that its client sent it to, see lib/dsr.h */
	PACKET_OF_PROXY = 2048,		/* a proxy sends it on to the server: egress policy was asked */
	PACKET_UPSTREAM = 4096,		/* an ingress proxy does: nobody's is asked again */
};

/* ICMP has no ports: source_port is the identifier of an echo (0 for others), destination_port
 * the type, as policy and events see it.  Conntrack maps them, see lib/conntrack.h.
 */
struct packet {
	union address source;
	union address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8   protocol;
	__u8   tcp_flags;
	__u8   family;		/* 4 or 6; 0 until known */
	__u8   grown;		/* bytes that a tunnel put around it */
	__be32 fragment;	/* identification, of fragments */
	__u16  l4_offset;
	__u16  flags;		/* enum packet_flag */
};

/* The bytes of an L4 header that are looked at. */
struct l4_header {
	union {
		struct {
			__be16 source;
			__be16 destination;
		} ports;
		struct {
			__u8   type;
			__u8   code;
			__be16 checksum;
		} icmp;
	};
	__be16 third;		/* ICMP echo: the identifier; TCP: the sequence number begins */
	__be16 fourth;
	__be32 acknowledgement;
	__u8   data_offset;	/* TCP: header length in words, in the upper four bits */
	__u8   tcp_flags;
};

#define L4_BASE 8	/* bytes that every followed protocol has */

/* The type of the request that ICMP *type* answers; *type* itself if it answers none. */
static __always_inline __u8 icmp_request_type(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMPV6)
		return type == ICMPV6_ECHO_REPLY ? ICMPV6_ECHO_REQUEST : type;
	switch (type) {
	case ICMP_ECHOREPLY:
		return ICMP_ECHO;
	case ICMP_TIMESTAMPREPLY:
		return ICMP_TIMESTAMP;
	}
	return type;
}

/* Does ICMP *type* ask for an answer that names the same identifier? */
static __always_inline bool icmp_is_request(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMPV6)
		return type == ICMPV6_ECHO_REQUEST;
	return type == ICMP_ECHO || type == ICMP_TIMESTAMP;
}

static __always_inline bool icmp_is_error(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMPV6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

/* Multicast listener, router, neighbour and redirect messages. */
static __always_inline bool icmp6_is_neighbour(__u8 type)
{
	return (type >= 130 && type <= 137) || type == 143;
}

static __always_inline int parse_icmp(struct packet *packet, const struct l4_header *l4)
{
	__u8 type = l4->icmp.type;

	/* Each belongs to one family: the other way round nothing may be concluded from the type. */
	if ((packet->protocol == IPPROTO_ICMP) != (packet->family == 4))
		return DROP_UNKNOWN_L4;
	packet->destination_port = bpf_htons(type);
	if (icmp_request_type(packet->protocol, type) != type)
		packet->flags |= PACKET_ICMP_REPLY;
	if (icmp_is_error(packet->protocol, type)) {
		packet->flags |= PACKET_ICMP_ERROR;
		if (packet->family == 4 && type == ICMP_DEST_UNREACH && l4->icmp.code == ICMP_FRAG_NEEDED)
			packet->flags |= PACKET_FRAG_NEEDED;
	} else if (packet->family == 6 && icmp6_is_neighbour(type)) {
		packet->flags |= PACKET_NEIGHBOUR;
	} else if (type == ICMP_ECHO || type == ICMP_ECHOREPLY || type == ICMP_TIMESTAMP ||
		   type == ICMP_TIMESTAMPREPLY || type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY) {
		packet->source_port = l4->third;
	}
	return 0;
}

static __always_inline bool l4_is_known(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Ports, ICMP type and TCP flags of *length* bytes of L4 (header and payload) at packet->l4_offset. */
static __always_inline int parse_l4(struct __sk_buff *skb, struct packet *packet, __u32 length)
{
	__u32 offset = packet->l4_offset & 0x3ff;	/* the verifier has forgotten that it is small */
	void *end = (void *)(long)skb->data_end;
	const struct l4_header *l4 = (void *)(long)skb->data + offset;
	struct l4_header copy;

	if (packet->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (length < L4_BASE)
		return l4_is_known(packet->protocol) ? DROP_CT_INVALID_HEADER : DROP_UNKNOWN_L4;
	if ((void *)(l4 + 1) > end) {
		__builtin_memset(&copy, 0, sizeof(copy));
		if (packet->protocol == IPPROTO_TCP) {
			if (bpf_skb_load_bytes(skb, offset, &copy, 14))
				return DROP_CT_INVALID_HEADER;
		} else if (bpf_skb_load_bytes(skb, offset, &copy, L4_BASE)) {
			return DROP_CT_INVALID_HEADER;	/* length says that they are there */
		}
		l4 = &copy;
	}

	switch (packet->protocol) {
	case IPPROTO_TCP: {
		__u32 header = (l4->data_offset >> 4) * 4;
		__u8 flags = l4->tcp_flags;

		if (header < 20 || header > length)
			return DROP_CT_INVALID_HEADER;
		/* Nobody opens and ends a connection in one segment. */
		if ((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST)))
			return DROP_CT_INVALID_HEADER;
		packet->tcp_flags = flags;
		break;
	}
	case IPPROTO_SCTP:
		if (length < 12)
			return DROP_CT_INVALID_HEADER;
		break;
	case IPPROTO_UDP:
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return parse_icmp(packet, l4);
	default:
		return DROP_UNKNOWN_L4;
	}
	packet->source_port = l4->ports.source;
	packet->destination_port = l4->ports.destination;
	return 0;
}

/* Source routing names a destination that policy would not see (RFC 791, options 131 and 137). */
GLOBAL int check_options4(struct __sk_buff *skb, __u32 end)
{
	__u32 offset = L3_OFFSET + sizeof(struct iphdr);
	int i;

	for (i = 0; i < 40 && offset < end; i++) {
		__u8 option[2] = {};

		if (bpf_skb_load_bytes(skb, offset, option, 1))
			return DROP_INVALID;
		if (option[0] == 0)
			return 0;
		if (option[0] == 1) {
			offset++;
			continue;
		}
		if (option[0] == 131 || option[0] == 137)
			return DROP_INVALID;
		if (bpf_skb_load_bytes(skb, offset + 1, option + 1, 1) || option[1] < 2)
			return DROP_INVALID;
		offset += option[1];
	}
	return offset > end ? DROP_INVALID : 0;
}

/* *there* is the number of bytes that follow the Ethernet header. */
static __always_inline int parse_ip4(struct __sk_buff *skb, struct packet *packet, __u32 there)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	const struct iphdr *ip = data + L3_OFFSET;
	__u32 header, total;
	__u16 fragment;

	if ((void *)(ip + 1) > end)
		return DROP_INVALID;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (total == 0 && there > 0xffff)	/* "BIG TCP": too long for the field */
		total = there;
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > there)
		return DROP_INVALID;

	packet->family = 4;
	packet->protocol = ip->protocol;
	packet->l4_offset = L3_OFFSET + header;
	address_set4(&packet->source, ip->saddr);
	address_set4(&packet->destination, ip->daddr);
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & (IP4_MORE_FRAGMENTS | IP4_OFFSET)) {
		packet->fragment = ip->id;
		packet->flags |= fragment & IP4_OFFSET ? PACKET_LATER_FRAGMENT : PACKET_FIRST_FRAGMENT;
	}
	if (header > sizeof(*ip)) {
		int error = check_options4(skb, L3_OFFSET + header);

		if (error)
			return error;
	}
	return parse_l4(skb, packet, total - header);
}

/* Follows extension headers from *next*; sets the L4 protocol, its offset and what is known of fragments. */
GLOBAL int parse_extensions6(struct __sk_buff *skb, struct packet *packet)
{
	__u32 offset;
	__u8 next;
	int i;

	if (!packet)
		return DROP_INVALID;
	offset = packet->l4_offset;
	next = packet->protocol;

	/* Linux 6.1 refuses a loop that an instruction other than a jump closes, as clang would have it. */
#pragma clang loop unroll(full)
	for (i = 0; i <= IP6_EXTENSIONS_MAX; i++) {
		struct { __u8 next, length, third, fourth; __be32 id; } header;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
			break;
		default:
			packet->protocol = next;
			packet->l4_offset = offset;
			return 0;
		}
		if (i == IP6_EXTENSIONS_MAX || (next == IPPROTO_HOPOPTS && i))
			return DROP_INVALID_EXTENSION_HEADER;
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return DROP_INVALID_EXTENSION_HEADER;
		if (next == IPPROTO_FRAGMENT) {
			__u16 fragment = (header.third << 8) | header.fourth;

			next = header.next;
			offset += 8;
			if (!(fragment & (IP6_MORE_FRAGMENTS | IP6_OFFSET)))
				continue;	/* a datagram in one fragment, RFC 6946 */
			if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
				return DROP_INVALID_EXTENSION_HEADER;
			packet->fragment = header.id;
			packet->flags |= fragment & IP6_OFFSET ? PACKET_LATER_FRAGMENT
							       : PACKET_FIRST_FRAGMENT;
			/* Later fragments name this protocol only: it has to be the last header. */
			if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING ||
			    next == IPPROTO_DSTOPTS || next == IPPROTO_FRAGMENT)
				return DROP_INVALID_EXTENSION_HEADER;
			continue;
		}
		/* Segments left: the destination would change behind policy's back. */
		if (next == IPPROTO_ROUTING && header.fourth)
			return DROP_INVALID_EXTENSION_HEADER;
		next = header.next;
		offset += 8 + header.length * 8;
	}
	return DROP_INVALID_EXTENSION_HEADER;
}

static __always_inline int parse_ip6(struct __sk_buff *skb, struct packet *packet, __u32 there)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	const struct ipv6hdr *ip = data + L3_OFFSET;
	__u32 total;

	if ((void *)(ip + 1) > end)
		return DROP_INVALID;
	total = bpf_ntohs(ip->payload_len);
	if (total == 0 && there > 0xffff)	/* jumbogram */
		total = there - sizeof(*ip);
	total += sizeof(*ip);
	if (ip->version != 6 || total > there)
		return DROP_INVALID;

	packet->family = 6;
	packet->protocol = ip->nexthdr;
	packet->l4_offset = L3_OFFSET + sizeof(*ip);
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	/* Such addresses would be taken for IPv4 ones in every map. */
	if (address_is4(&packet->source))
		return DROP_INVALID_SOURCE_IP;
	if (address_is4(&packet->destination))
		return DROP_UNROUTABLE;

	switch (packet->protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_FRAGMENT: {
		int error = parse_extensions6(skb, packet);

		if (error)
			return error;
		if (packet->l4_offset > 0x3ff)
			return DROP_INVALID_EXTENSION_HEADER;
		if (packet->l4_offset > L3_OFFSET + total)
			return DROP_INVALID_EXTENSION_HEADER;
	}
	}
	return parse_l4(skb, packet, L3_OFFSET + total - packet->l4_offset);
}

/* Makes the first headers linear.  Most packets come that way, and the helper is not called. */
static __always_inline void packet_pull(struct __sk_buff *skb)
{
	const __u32 wanted = L3_OFFSET + sizeof(struct ipv6hdr) + 20;
	__u32 length = skb->len;

	if ((void *)(long)skb->data + L3_OFFSET + sizeof(struct iphdr) > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, length < wanted ? length : wanted);
}

/* The EtherType, network order; 0 if there is no room for one. */
static __always_inline __be16 packet_ethertype(struct __sk_buff *skb)
{
	const __be16 *type = (void *)(long)skb->data + 2 * ETH_ALEN;

	return (void *)(type + 1) > (void *)(long)skb->data_end ? 0 : *type;
}

/* Fills *packet* from an IP packet; 0 or why it is dropped.  What was read before an error stays. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct packet *packet, __be16 ethertype)
{
	switch (ethertype) {
	case bpf_htons(ETH_P_IP):
		return parse_ip4(skb, packet, skb->len - L3_OFFSET);
	case bpf_htons(ETH_P_IPV6):
		/* Longer than IPv4's header, so it may not be linear yet. */
		if ((void *)(long)skb->data + L3_OFFSET + sizeof(struct ipv6hdr) > (void *)(long)skb->data_end &&
		    bpf_skb_pull_data(skb, L3_OFFSET + sizeof(struct ipv6hdr)))
			return DROP_INVALID;
		return parse_ip6(skb, packet, skb->len - L3_OFFSET);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return DROP_VLAN_FILTERED;
	}
	return bpf_ntohs(ethertype) < ETH_P_802_3_MIN ? DROP_UNKNOWN_L2 : DROP_UNKNOWN_L3;
}
