/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* dsr: a client's packet goes to a backend's node under its own source, and names the frontend that it was sent
 * to: in an IPv4 option, or an IPv6 destination option.  That node takes it off, and answers in the frontend's name.
 */
#pragma once
#include "lb.h"
#include "rewrite.h"
#include "verdict.h"

#define DSR_OPTION4	0x9a	/* copied into fragments, number 26: nobody else's */
#define DSR_OPTION6	0x1b	/* who does not know it skips it */
#define DSR_FLAGS	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

struct dsr4 {
	__u8   type;
	__u8   length;
	__be16 port;
	__be32 address;
};

struct dsr6 {
	__u8   next;		/* header */
	__u8   length;		/* in 8 bytes, without the first 8 */
	__u8   type;		/* of the one option that follows */
	__u8   option_length;
	union address address;
	__be16 port;
	__u16  pad;
} __attribute__((packed));

/* What the packet at hand names; noted when its verdict is taken. */
SCRATCH(cirri_dsr_named, struct lb_frontend);

static __always_inline struct lb_frontend *dsr_named(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cirri_dsr_named, &zero);
}

/* By how much a packet grows that names its frontend. */
static __always_inline __u32 dsr_bytes(__u8 family)
{
	return family == 4 ? sizeof(struct dsr4) : sizeof(struct dsr6);
}

/* Is it the last fragment of its datagram? */
static __always_inline bool dsr_is_last(struct __sk_buff *skb, const struct packet *packet)
{
	__be16 fragment = 0;

	if (packet->family == 4)
		return !bpf_skb_load_bytes(skb, L3_OFFSET + __builtin_offsetof(struct iphdr, frag_off), &fragment, 2) &&
		       !(fragment & bpf_htons(IP4_MORE_FRAGMENTS));
	/* That header is always the last one before L4's, see parse_extensions6. */
	return !bpf_skb_load_bytes(skb, packet->l4_offset - 6, &fragment, 2) &&
	       !(fragment & bpf_htons(IP6_MORE_FRAGMENTS));
}

/* Does it have to name its frontend?  The backend's node remembers a TCP connection's.  Of fragments the last one
 * does, in which there mostly is room: no answer comes before it.
 */
static __always_inline bool dsr_opens(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP)
		return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return dsr_is_last(skb, packet);
	return !(packet->flags & PACKET_FIRST_FRAGMENT);
}

/* IPv4's header with *option*, or without it: its length and the packet's, and the checksum. */
GLOBAL int dsr_head4(struct __sk_buff *skb, const struct dsr4 *option, __u32 with)
{
	struct { __u8 version_ihl, tos; __be16 length; } old, fresh;
	__s64 sum;

	if (!option || bpf_skb_load_bytes(skb, L3_OFFSET, &old, sizeof(old)))
		return DROP_INVALID;
	fresh = old;
	fresh.version_ihl = with ? old.version_ihl + sizeof(*option) / 4 : old.version_ihl - sizeof(*option) / 4;
	fresh.length = bpf_htons(with ? bpf_ntohs(old.length) + sizeof(*option)
				      : bpf_ntohs(old.length) - sizeof(*option));
	sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&fresh, sizeof(fresh), 0);
	sum = with ? bpf_csum_diff(NULL, 0, (__be32 *)option, sizeof(*option), sum)
		   : bpf_csum_diff((__be32 *)option, sizeof(*option), NULL, 0, sum);
	if (bpf_l3_csum_replace(skb, L3_OFFSET + __builtin_offsetof(struct iphdr, check), 0, sum, 0) ||
	    bpf_skb_store_bytes(skb, L3_OFFSET, &fresh, sizeof(fresh), 0))
		return DROP_INVALID;
	return 0;
}

/* IPv6's header, with a struct dsr6 behind it or without: the packet's length, and what follows. */
GLOBAL int dsr_head6(struct __sk_buff *skb, __u32 next, __u32 with)
{
	struct { __be16 length; __u8 next; } head;
	const __u32 at = L3_OFFSET + __builtin_offsetof(struct ipv6hdr, payload_len);

	if (bpf_skb_load_bytes(skb, at, &head, sizeof(head)))
		return DROP_INVALID;
	head.length = bpf_htons(with ? bpf_ntohs(head.length) + sizeof(struct dsr6)
				     : bpf_ntohs(head.length) - sizeof(struct dsr6));
	head.next = next;
	return bpf_skb_store_bytes(skb, at, &head, sizeof(head), BPF_F_RECOMPUTE_CSUM) ? DROP_INVALID : 0;
}

/* Has *packet*, whose destination is the backend's already, name *frontend*; 0, or a drop reason. */
GLOBAL int dsr_put(struct __sk_buff *skb, struct packet *packet, const struct end *frontend)
{
	__u32 bytes;

	if (!packet || !frontend)
		return DROP_INVALID;
	bytes = dsr_bytes(packet->family);
	if (packet->family == 4 && packet->l4_offset + bytes > L3_OFFSET + 60)
		return DROP_INVALID;	/* no room for another option */
	if (bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_NET, DSR_FLAGS))
		return DROP_INVALID;
	if (packet->family == 4) {
		struct dsr4 option = {
			.type = DSR_OPTION4,
			.length = sizeof(option),
			.port = frontend->port,
			.address = frontend->address.words[3],
		};

		if (bpf_skb_store_bytes(skb, L3_OFFSET + sizeof(struct iphdr), &option, sizeof(option), 0) ||
		    dsr_head4(skb, &option, true))
			return DROP_INVALID;
	} else {
		struct dsr6 option = {
			.length = sizeof(option) / 8 - 1,
			.type = DSR_OPTION6,
			.option_length = sizeof(option) - 4,
			.address = frontend->address,
			.port = frontend->port,
		};

		if (bpf_skb_load_bytes(skb, L3_OFFSET + __builtin_offsetof(struct ipv6hdr, nexthdr), &option.next, 1))
			return DROP_INVALID;
		if (option.next == IPPROTO_HOPOPTS)
			return DROP_INVALID_EXTENSION_HEADER;	/* has to stay the first */
		if (bpf_skb_store_bytes(skb, L3_OFFSET + sizeof(struct ipv6hdr), &option, sizeof(option),
					BPF_F_RECOMPUTE_CSUM) ||
		    dsr_head6(skb, IPPROTO_DSTOPTS, true))
			return DROP_INVALID;
	}
	packet->l4_offset += bytes;
	return 0;
}

/* Does *packet* carry anything between its IP header and L4? */
static __always_inline bool dsr_has_more(const struct packet *packet)
{
	return packet->l4_offset !=
	       L3_OFFSET + (packet->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

static __always_inline bool dsr_find4(struct __sk_buff *skb, struct dsr4 *option)
{
	return !bpf_skb_load_bytes(skb, L3_OFFSET + sizeof(struct iphdr), option, sizeof(*option)) &&
	       option->type == DSR_OPTION4 && option->length == sizeof(*option);
}

static __always_inline bool dsr_find6(struct __sk_buff *skb, struct dsr6 *option)
{
	const __u32 at = L3_OFFSET + __builtin_offsetof(struct ipv6hdr, nexthdr);
	__u8 next;

	return !bpf_skb_load_bytes(skb, at, &next, 1) && next == IPPROTO_DSTOPTS &&
	       !bpf_skb_load_bytes(skb, L3_OFFSET + sizeof(struct ipv6hdr), option, sizeof(*option)) &&
	       option->length == sizeof(*option) / 8 - 1 && option->type == DSR_OPTION6 &&
	       option->option_length == sizeof(*option) - 4;
}

/* Notes in *named* the frontend that a packet of *protocol* names.  Anybody could write one: it has to be one that
 * this node knows.
 */
static __always_inline bool dsr_name(struct lb_frontend *named, const union address *address, __be16 port,
				     __u8 protocol)
{
	named->address = *address;
	named->port = port;
	return lb_service_lookup(address, port, protocol, LB_INTERNAL);
}

/* Takes the frontend that an IPv4 packet names off it: 1, 0 if it names none, or a drop reason. */
GLOBAL int dsr_take4(struct __sk_buff *skb, struct lb_frontend *named, __u32 protocol)
{
	union address address;
	struct dsr4 option;

	if (!named || !dsr_find4(skb, &option))
		return 0;
	address_set4(&address, option.address);
	if (!dsr_name(named, &address, option.port, protocol))
		return DROP_NO_BACKEND;
	if (dsr_head4(skb, &option, false) ||
	    bpf_skb_adjust_room(skb, -(__s32)sizeof(option), BPF_ADJ_ROOM_NET, DSR_FLAGS))
		return DROP_INVALID;
	return 1;
}

/* The same of IPv6. */
GLOBAL int dsr_take6(struct __sk_buff *skb, struct lb_frontend *named, __u32 protocol)
{
	union address address;
	struct dsr6 option;

	if (!named || !dsr_find6(skb, &option))
		return 0;
	address = option.address;
	if (!dsr_name(named, &address, option.port, protocol))
		return DROP_NO_BACKEND;
	if (dsr_head6(skb, option.next, false) ||
	    bpf_skb_adjust_room(skb, -(__s32)sizeof(option), BPF_ADJ_ROOM_NET, DSR_FLAGS))
		return DROP_INVALID;
	return 1;
}

/* Does *packet* name a frontend? */
GLOBAL int dsr_is_there(struct __sk_buff *skb, const struct packet *packet)
{
	struct dsr4 option4;
	struct dsr6 option6;

	if (!packet)
		return 0;
	return packet->family == 4 ? dsr_find4(skb, &option4) : dsr_find6(skb, &option6);
}

/* Takes off what a packet for a pod of this node names; 0, or a drop reason. */
GLOBAL int dsr_receive(struct __sk_buff *skb, struct passage *passage)
{
	struct lb_frontend *named = dsr_named();
	struct packet *packet;
	int found;

	if (!passage || !named)
		return DROP_INVALID;
	packet = &passage->packet;
	found = packet->family == 4 ? dsr_take4(skb, named, packet->protocol) : dsr_take6(skb, named, packet->protocol);
	if (found <= 0)
		return found;
	packet->l4_offset -= dsr_bytes(packet->family);
	packet->flags |= PACKET_NAMES_FRONTEND;
	passage->frontend = LB_FRONTEND_DSR;
	return 0;
}

static __always_inline void dsr_key_set(struct lb_flow_key *key, const union address *client, __be16 client_port,
					const union address *pod, __be16 port, __u8 protocol)
{
	key->client = *client;
	key->address = *pod;
	key->client_port = client_port;
	key->port = port;
	*(__u32 *)&key->protocol = 0;	/* and pad */
	key->protocol = protocol;
}

/* Notes what *packet*, which may pass, named; 0, or a drop reason. */
GLOBAL int dsr_note(const struct packet *packet)
{
	const struct lb_frontend *named = dsr_named(), *known;
	struct lb_flow_key key;

	if (!packet || !named)
		return DROP_INVALID;
	dsr_key_set(&key, &packet->source, packet->source_port, &packet->destination, packet->destination_port,
		    packet->protocol);
	known = bpf_map_lookup_elem(&cirri_dsr, &key);
	if (known && address_equal(&known->address, &named->address) && known->port == named->port)
		return 0;
	return bpf_map_update_elem(&cirri_dsr, &key, named, BPF_ANY) ? DROP_CT_CREATE_FAILED : 0;
}

/* The frontend that the client named to which *packet* is an answer; *turned*: which sent it. */
static __always_inline const struct lb_frontend *dsr_known(const struct packet *packet, bool turned)
{
	struct lb_flow_key key;

	if (turned)
		dsr_key_set(&key, &packet->source, packet->source_port, &packet->destination,
			    packet->destination_port, packet->protocol);
	else
		dsr_key_set(&key, &packet->destination, packet->destination_port, &packet->source,
			    packet->source_port, packet->protocol);
	return bpf_map_lookup_elem(&cirri_dsr, &key);
}
