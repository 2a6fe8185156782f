/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sockets: those of proxies in the node's own network namespace, found for packets. */
#pragma once
#include "mark.h"
#include "packet.h"

static __always_inline bool packet_opens(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* *packet*'s ends, as sockets are looked for; the number of bytes. */
static __always_inline __u32 socket_ends(struct bpf_sock_tuple *ends, const struct packet *packet)
{
	if (packet->family == 4) {
		ends->ipv4.saddr = packet->source.words[3];
		ends->ipv4.daddr = packet->destination.words[3];
		ends->ipv4.sport = packet->source_port;
		ends->ipv4.dport = packet->destination_port;
		return sizeof(ends->ipv4);
	}
	__builtin_memcpy(ends->ipv6.saddr, &packet->source, sizeof(ends->ipv6.saddr));
	__builtin_memcpy(ends->ipv6.daddr, &packet->destination, sizeof(ends->ipv6.daddr));
	ends->ipv6.sport = packet->source_port;
	ends->ipv6.dport = packet->destination_port;
	return sizeof(ends->ipv6);
}

/* The same, but to *port* of the node's loopback. */
static __always_inline __u32 socket_ends_here(struct bpf_sock_tuple *ends, const struct packet *packet, __u16 port)
{
	__u32 size = socket_ends(ends, packet);

	if (size == sizeof(ends->ipv4)) {
		ends->ipv4.daddr = bpf_htonl(0x7f000001);
		ends->ipv4.dport = bpf_htons(port);
	} else {
		ends->ipv6.daddr[0] = 0;
		ends->ipv6.daddr[1] = 0;
		ends->ipv6.daddr[2] = 0;
		ends->ipv6.daddr[3] = bpf_htonl(1);
		ends->ipv6.dport = bpf_htons(port);
	}
	return size;
}

/* Does a TCP socket have the four ends of *packet*?  One that only waits for what may still be on its way has
 * nothing to do with a new connection.
 */
GLOBAL int socket_has(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple ends = {};
	struct bpf_sock *socket;
	__u32 state, size;

	if (!packet)
		return 0;
	size = socket_ends(&ends, packet);
	socket = bpf_skc_lookup_tcp(skb, &ends, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state != BPF_TCP_LISTEN && !(state == BPF_TCP_TIME_WAIT && packet_opens(packet));
}

/* Does a proxy's socket that faces a server have *packet*'s destination? */
GLOBAL int socket_asked(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock_tuple ends = {};
	struct bpf_sock *socket;
	__u32 size, mark;

	if (!packet)
		return 0;
	size = socket_ends(&ends, packet);
	if (packet->protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(skb, &ends, size, BPF_F_CURRENT_NETNS, 0);
	else
		socket = bpf_sk_lookup_udp(skb, &ends, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	mark = socket->mark;
	bpf_sk_release(socket);
	return mark_is_server_side(mark_of_proxy(mark));
}

/* Gives the packet to the socket that listens at *port* of the node's loopback; 0, or a drop reason. */
GLOBAL int socket_assign_tcp(struct __sk_buff *skb, const struct packet *packet, __u32 port)
{
	struct bpf_sock_tuple ends = {};
	struct bpf_sock *socket;
	__u32 state, size;
	long error;

	if (!packet)
		return DROP_INVALID;
	size = socket_ends_here(&ends, packet, port);
	socket = bpf_skc_lookup_tcp(skb, &ends, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return DROP_NO_PROXY;
	state = socket->state;
	error = state == BPF_TCP_LISTEN ? bpf_sk_assign(skb, socket, 0) : 0;
	bpf_sk_release(socket);
	if (state != BPF_TCP_LISTEN)
		return DROP_NO_PROXY;
	return error ? DROP_PROXY_ASSIGN : 0;
}

GLOBAL int socket_assign_udp(struct __sk_buff *skb, const struct packet *packet, __u32 port)
{
	struct bpf_sock_tuple ends = {};
	struct bpf_sock *socket;
	long error;
	__u32 size;

	if (!packet)
		return DROP_INVALID;
	size = socket_ends_here(&ends, packet, port);
	socket = bpf_sk_lookup_udp(skb, &ends, size, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return DROP_NO_PROXY;
	error = bpf_sk_assign(skb, socket, 0);
	bpf_sk_release(socket);
	return error ? DROP_PROXY_ASSIGN : 0;
}
