/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* overlay: packets between nodes travel inside UDP (VXLAN), with the sender's identity as the VNI.
 * The device takes the outer addresses from each packet's metadata.
 */
#pragma once
#include <stddef.h>
#include "address.h"
#include "drop.h"
#include "ipcache.h"
#include "packet.h"

#define TUNNEL_TTL	64
#define VNI_BITS	24
#define VNI_POD_FIRST	256	/* below are reserved identities, which addresses tell better: but for the world's */

/* Newer kernels know more fields, older ones refuse more bytes. */
#define TUNNEL_KEY_BYTES offsetof(struct bpf_tunnel_key, local_ipv4)

/* Has a program said already where this packet is to be sent? */
static __always_inline bool overlay_is_addressed(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key;

	return !bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, 0);
}

/* Is *identity* told beside a packet?  Of a client outside, whose packets come under a node's address, that it
 * is one.
 */
static __always_inline bool overlay_tells(__u32 identity)
{
	return (identity >= VNI_POD_FIRST && !(identity >> VNI_BITS)) || identity == IDENTITY_WORLD_IPV4 ||
	       identity == IDENTITY_WORLD_IPV6;
}

/* Addresses the packet to *node*, as sent by *identity*; one that is not told goes as 0: the receiver looks at
 * the source address.  0, or a drop reason.
 */
GLOBAL int overlay_address(struct __sk_buff *skb, const union address *node, __u32 identity)
{
	struct bpf_tunnel_key key = {};

	if (!node || !address_is4(node))
		return DROP_NO_TUNNEL_ENDPOINT;
	key.tunnel_id = overlay_tells(identity) ? identity : 0;
	key.remote_ipv4 = bpf_ntohl(node->words[3]);
	key.tunnel_ttl = TUNNEL_TTL;
	if (bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, BPF_F_ZERO_CSUM_TX))
		return DROP_NO_TUNNEL_ENDPOINT;
	return 0;
}

/* The node that sent what came out of the tunnel, and the identity that it names; false: there is none. */
static __always_inline bool overlay_sender(struct __sk_buff *skb, union address *node, __u32 *identity)
{
	struct bpf_tunnel_key key;

	if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, 0))
		return false;
	address_set4(node, bpf_htonl(key.remote_ipv4));
	*identity = overlay_tells(key.tunnel_id) ? key.tunnel_id : 0;
	return true;
}

/* Addresses what came out of the tunnel to the node that sent it, as sent by nobody in particular; 0, or a drop reason. */
GLOBAL int overlay_turn(struct __sk_buff *skb)
{
	union address node;
	__u32 identity;

	return overlay_sender(skb, &node, &identity) ? overlay_address(skb, &node, 0) : DROP_NO_TUNNEL_KEY;
}
