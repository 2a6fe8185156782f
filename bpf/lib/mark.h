/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* marks: in skb->mark and SO_MARK they say that a packet is for a proxy of this node, or which side of one sent it.
 * Pods cannot set them: a packet that changes its network namespace loses its mark.
 * Mirror: libs/cirri/layout/mark.py
 */
#pragma once
#include "map.h"

#define MARK_MASK 0x0f00u	/* the bits that policy routing looks at */

enum mark {
	MARK_TO_PROXY = 0x0200,		/* the node's stack delivers it to a socket, whatever its destination is */
	MARK_INGRESS_CLIENT = 0x0a00,	/* of sockets that face the client: listeners, and what they accepted */
	MARK_INGRESS_SERVER = 0x0a01,	/* of those that face the server */
	MARK_EGRESS_CLIENT = 0x0b00,
	MARK_EGRESS_SERVER = 0x0b01,
};

/* The side of a proxy that *mark* names, enum mark; 0: none. */
static __always_inline __u16 mark_of_proxy(__u32 mark)
{
	return (mark & 0x0e00) == MARK_INGRESS_CLIENT ? mark & 0x0f01 : 0;
}

static __always_inline bool mark_is_client_side(__u16 mark)
{
	return mark && !(mark & 1);
}

static __always_inline bool mark_is_server_side(__u16 mark)
{
	return mark & 1;
}
