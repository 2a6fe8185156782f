/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* host: the node itself as an endpoint, while the runtime's RUNTIME_HOST_FIREWALL says so.
 * What leaves without having come in by a device is the node's, whatever its source says; what comes
 * is for the node if its stack would keep it.
 */
#pragma once
#include "endpoint.h"
#include "packet.h"
#include "route.h"
#include "runtime.h"

/* The node's entry that stands under no address. */
static __always_inline const struct endpoint *host_endpoint(void)
{
	const union address none = {};

	return endpoint_lookup(&none);
}

static __always_inline bool endpoint_is_host(const struct endpoint *endpoint)
{
	return endpoint && endpoint->flags & ENDPOINT_HOST;
}

/* Would the node's stack keep *packet*?  So says the routing table; to an address that no route leads
 * to nothing is forwarded either, and it counts as the node's.
 */
GLOBAL int host_keeps(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_fib_lookup route = {};
	long result;

	if (!packet)
		return 0;
	if (address_is_multicast(&packet->destination))
		return 1;
	route_ask(&route, &packet->source, &packet->destination, packet->family, skb->ifindex);
	result = bpf_fib_lookup(skb, &route, sizeof(route), 0);
	return result < 0 || result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* The node as the receiver of *packet*; NULL: it is for somebody else.
 * *listed*: the entry under the destination's address, if there is one.
 */
static __always_inline const struct endpoint *host_receiver(struct __sk_buff *skb, const struct packet *packet,
							    const struct endpoint *listed)
{
	if (endpoint_is_host(listed))
		return listed;
	return host_keeps(skb, packet) ? host_endpoint() : NULL;
}

/* The node as the sender of *packet*, which did not come in by a device. */
static __always_inline const struct endpoint *host_sender(const struct packet *packet, __u32 epoch)
{
	const struct endpoint *listed = endpoint_recall(&packet->source, epoch, END_SENDER);

	return endpoint_is_host(listed) ? listed : host_endpoint();
}

#define PORT_DHCP4_SERVER	bpf_htons(67)
#define PORT_DHCP4_CLIENT	bpf_htons(68)
#define PORT_DHCP6_CLIENT	bpf_htons(546)
#define PORT_DHCP6_SERVER	bpf_htons(547)

/* Without these a node has no neighbours, no group and no address, and nobody could mend its policy:
 * ND and MLD, IGMP, and its own DHCP client's messages.
 */
static __always_inline bool host_cannot_do_without(const struct packet *packet, bool leaves)
{
	__be16 near = leaves ? packet->source_port : packet->destination_port;
	__be16 far = leaves ? packet->destination_port : packet->source_port;

	if (packet->flags & PACKET_NEIGHBOUR || (packet->family == 4 && packet->protocol == IPPROTO_IGMP))
		return true;
	if (packet->protocol != IPPROTO_UDP)
		return false;
	return packet->family == 4 ? near == PORT_DHCP4_CLIENT && far == PORT_DHCP4_SERVER
				   : near == PORT_DHCP6_CLIENT && far == PORT_DHCP6_SERVER;
}

/* Protocols without ports that pods may not use are the node's business: rules without ports speak of them. */
static __always_inline int host_forgive(const struct packet *packet, int error)
{
	return error == DROP_UNKNOWN_L4 && !l4_is_known(packet->protocol) ? 0 : error;
}
