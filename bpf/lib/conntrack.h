/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* conntrack: connections seen by this node, and the verdict given to each.
 * One entry serves both directions: the key holds the two ends in numeric order.
 * Written by bpf_pod.c, bpf_node.c; cirri.datapath removes what has expired.
 * Mirror: libs/cirri/layout/conntrack.py
 */
#pragma once
#include "address.h"
#include "map.h"

struct ct_key {
	union address low;	/* the smaller end (address, then port, as the CPU compares them) */
	union address high;
	__be16 low_port;	/* ICMP echo: the identifier, in both */
	__be16 high_port;
	__u8   protocol;
	__u8   pad[3];
};

enum ct_flag {
	CT_FROM_HIGH = 1,	/* the end stored as `high` opened the connection */
	CT_SEEN_REPLY = 2,
	CT_FIN_FORWARD = 4,
	CT_FIN_REPLY = 8,
	CT_RESET = 16,
	CT_ESTABLISHED = 32,	/* TCP: handshake complete */
};

struct ct_value {
	__u64 expires;		/* ns, CLOCK_MONOTONIC */
	__u64 forward_packets;
	__u64 forward_bytes;
	__u64 reply_packets;
	__u64 reply_bytes;
	__u32 source_identity;	/* of the end that opened the connection */
	__u32 destination_identity;
	__u32 epoch;		/* struct runtime.epoch when the verdict was taken */
	__u32 egress_rule;	/* provenance of the verdicts; 0: not enforced or not asked here */
	__u32 ingress_rule;
	__u16 flags;		/* enum ct_flag */
	__u16 pad;
};

MAP(cirri_ct, LRU_HASH, struct ct_key, struct ct_value, 131072);
