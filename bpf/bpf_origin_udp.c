/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which process sent messages by UDP, and by ICMP sockets: once they are sent, since only then the socket has
 * its port.  A kernel before 6.3 has no such tracepoint.
 */
#include "lib/origin_note.h"
#include "lib/sensor_scope.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define IPPROTO_ICMPV6	58

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* More of what lib/sensor_kernel.h has: the same structs in the kernel. */
struct net___cookie { __u64 net_cookie; };

struct sock_common___end {
	__be32 skc_rcv_saddr;
	__u16 skc_num;
	unsigned short skc_family;
	struct { struct net___cookie *net; } skc_net;
	struct { union { __u32 u6_addr32[4]; } in6_u; } skc_v6_rcv_saddr;
	struct { __s64 counter; } skc_cookie;
};

struct sock___end {
	struct sock_common___end __sk_common;
	__u16 sk_protocol;
};

#pragma clang attribute pop

SEC("tp_btf/sock_send_length")
int BPF_PROG(origin_sent, struct sock___end *sk, int length, int flags)
{
	__u16 protocol = sk->sk_protocol, family = sk->__sk_common.skc_family;
	struct origin_key key = { .kind = ORIGIN_SENDER };
	__u64 netns;

	if ((protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6) || length < 0 ||
	    !sensor_in_scope())
		return 0;
	netns = sk->__sk_common.skc_net.net->net_cookie;
	/* Proxies of the node have pods' addresses, and are no pods. */
	if (netns == node_netns)
		return 0;
	if (family == AF_INET)
		address_set4(&key.local, sk->__sk_common.skc_rcv_saddr);
	else if (family == AF_INET6)
		BPF_CORE_READ_INTO(&key.local, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32);
	else
		return 0;
	key.protocol = protocol;
	key.local_port = bpf_htons(sk->__sk_common.skc_num);
	if (address_is_any(&key.local))
		origin_local(&key, netns);
	else
		space_set(&key.local, netns);
	origin_set(&key, bpf_get_current_task_btf(), sk->__sk_common.skc_cookie.counter);
	return 0;
}
