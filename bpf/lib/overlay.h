/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* overlay: packets between nodes travel inside UDP (VXLAN), with the sender's identity as the VNI.
 * The device takes the outer addresses from each packet's metadata.
 */
#pragma once
#include <stddef.h>
#include "address.h"
#include "drop.h"
#include "packet.h"

#define TUNNEL_TTL	64
#define VNI_BITS	24
#define VNI_POD_FIRST	256	/* below are reserved identities, which addresses tell better */

/* Newer kernels know more fields, older ones refuse more bytes. */
#define TUNNEL_KEY_BYTES offsetof(struct bpf_tunnel_key, local_ipv4)

/* Has a program said already where this packet is to be sent? */
static __always_inline bool overlay_is_addressed(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key;

	return !bpf_skb_get_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, 0);
}

/* Addresses the packet to *node*, as sent by *identity*; what is no pod's identity, or too large for a VNI,
 * goes as 0: the receiver looks at the source address.  0, or a drop reason.
 */
GLOBAL int overlay_address(struct __sk_buff *skb, const union address *node, __u32 identity)
{
	struct bpf_tunnel_key key = {};

	if (!node || !address_is4(node))
		return DROP_NO_TUNNEL_ENDPOINT;
	key.tunnel_id = identity >> VNI_BITS || identity < VNI_POD_FIRST ? 0 : identity;
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
	*identity = key.tunnel_id < VNI_POD_FIRST ? 0 : key.tunnel_id;
	return true;
}
