/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* reset: makes of a TCP segment what a host answers where nobody listens (RFC 9293, 3.10.7.1). */
#pragma once
#include "csum.h"
#include "packet.h"

#define IP4_DONT_FRAGMENT 0x4000

struct reset {
	__be16 source;
	__be16 destination;
	__be32 sequence;
	__be32 acknowledgement;
	__u8   length;		/* of the header, in words, in the upper four bits */
	__u8   flags;
	__be16 window;
	__sum16 checksum;
	__be16 urgent;
};

/* What follows the Ethernet header: the IPv4 header is at the end of the larger IPv6 one. */
struct reset_packet {
	union {
		struct ipv6hdr ip6;
		struct {
			__u8 unused[sizeof(struct ipv6hdr) - sizeof(struct iphdr)];
			struct iphdr ip;
		};
	};
	struct reset tcp;
};

/* How far *packet*, whose TCP header is *tcp*, moves the sequence: SYN, FIN and what it carries. */
static __always_inline __u32 reset_length(struct __sk_buff *skb, const struct packet *packet, const struct reset *tcp)
{
	__u32 at = packet->family == 4 ? __builtin_offsetof(struct iphdr, tot_len)
				       : __builtin_offsetof(struct ipv6hdr, payload_len);
	__u32 start = packet->family == 4 ? L3_OFFSET : L3_OFFSET + sizeof(struct ipv6hdr);
	__be16 length = 0;

	bpf_skb_load_bytes(skb, L3_OFFSET + at, &length, sizeof(length));
	return start + bpf_ntohs(length) - packet->l4_offset - (tcp->length >> 4) * 4 +
	       !!(tcp->flags & TCP_SYN) + !!(tcp->flags & TCP_FIN);
}

/* Writes the answer to *packet* into *answer*: of its TCP header, which has been read, and of its addresses. */
static __always_inline void reset_fill(struct __sk_buff *skb, const struct packet *packet, struct reset_packet *answer)
{
	struct reset *tcp = &answer->tcp;
	__be16 port = tcp->source;
	__u64 sum = bpf_htonl(sizeof(*tcp)) + (__u64)bpf_htonl(IPPROTO_TCP);
	__u32 i;

	if (tcp->flags & TCP_ACK) {
		tcp->sequence = tcp->acknowledgement;
		tcp->acknowledgement = 0;
		tcp->flags = TCP_RST;
	} else {
		tcp->acknowledgement = bpf_htonl(bpf_ntohl(tcp->sequence) + reset_length(skb, packet, tcp));
		tcp->sequence = 0;
		tcp->flags = TCP_RST | TCP_ACK;
	}
	tcp->source = tcp->destination;
	tcp->destination = port;
	tcp->length = sizeof(*tcp) / 4 << 4;
	tcp->window = 0;
	tcp->urgent = 0;
	tcp->checksum = 0;
	if (packet->family == 4) {
		answer->ip.version = 4;
		answer->ip.ihl = 5;
		answer->ip.tot_len = bpf_htons(sizeof(answer->ip) + sizeof(*tcp));
		answer->ip.frag_off = bpf_htons(IP4_DONT_FRAGMENT);
		answer->ip.ttl = 64;
		answer->ip.protocol = IPPROTO_TCP;
		answer->ip.saddr = packet->destination.words[3];
		answer->ip.daddr = packet->source.words[3];
		answer->ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer->ip, sizeof(answer->ip), 0));
		sum += (__u64)answer->ip.saddr + answer->ip.daddr;
	} else {
		answer->ip6.version = 6;
		answer->ip6.payload_len = bpf_htons(sizeof(*tcp));
		answer->ip6.nexthdr = IPPROTO_TCP;
		answer->ip6.hop_limit = 64;
		__builtin_memcpy(&answer->ip6.saddr, &packet->destination, sizeof(answer->ip6.saddr));
		__builtin_memcpy(&answer->ip6.daddr, &packet->source, sizeof(answer->ip6.daddr));
		for (i = 0; i < 4; i++)
			sum += (__u64)packet->source.words[i] + packet->destination.words[i];
	}
	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), 0);
	tcp->checksum = csum_fold(sum);
}
