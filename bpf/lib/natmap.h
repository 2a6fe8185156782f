/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* natmap: what is known of connections that leave under an address of the node's and a port of ours.  Each has an
 * entry NAT_BACK, by what answers look like.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c (cirri.datapath removes what has expired).
 * Read by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_xdp.c, cirri.cli.
 * Mirror: libs/cirri/layout/nat.py
 */
#pragma once
#include "address.h"
#include "map.h"
#include "packet.h"
#include "runtime.h"

#define NAT_PORT_FIRST	49152	/* up to 65535: no socket of the node is given these */

enum nat_direction {
	NAT_OUT = 0,
	NAT_BACK = 1,
};

struct nat_key {
	union address local;	/* OUT: the source, before; BACK: the node's */
	union address remote;
	__be16 local_port;	/* ICMP: the identifier */
	__be16 remote_port;	/* ICMP: 0 */
	__u8   protocol;
	__u8   direction;	/* enum nat_direction */
	__u16  pad;
	__u32  frontend;	/* OUT: as in the value; BACK: 0 */
	__u32  pad2;
};

struct nat_value {
	union address address;	/* OUT: the node's; BACK: the source, before */
	__u64 expires;		/* ns, CLOCK_MONOTONIC; OUT: 0, it is worth what its other entry is */
	__u32 flags;		/* enum ct_flag: what is known of the connection */
	__u32 frontend;		/* struct lb_service.frontend by which the source came; 0: a pod's, masqueraded */
	__be16 port;		/* of that address */
	__u16 pad[3];
};

MAP(cirri_nat, LRU_HASH, struct nat_key, struct nat_value, 131072);

static __always_inline void nat_key_back(struct nat_key *key, const union address *address, __be16 port)
{
	key->local = *address;
	key->local_port = port;
	key->direction = NAT_BACK;
	key->pad = 0;
	key->frontend = 0;
	key->pad2 = 0;
}

/* May *packet* be for a port of ours?  To be asked before nat_back, so that others pay next to nothing. */
static __always_inline bool nat_expected(const struct packet *packet)
{
	const struct runtime *runtime;

	if (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP) {
		if (bpf_ntohs(packet->destination_port) < NAT_PORT_FIRST && !(packet->flags & PACKET_LATER_FRAGMENT))
			return false;
	}
	runtime = runtime_get();
	return runtime &&
	       address_equal(&packet->destination, packet->family == 4 ? &runtime->nat4 : &runtime->nat6);
}
