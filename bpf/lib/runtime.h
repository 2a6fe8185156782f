/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the node's datapath service may change while programs run.
 * Written by cirri.datapath.  Read by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_sock.c, bpf_xdp.c.
 * Mirror: libs/cirri/layout/runtime.py
 */
#pragma once
#include "address.h"
#include "map.h"

enum runtime_flag {
	RUNTIME_HOST_FIREWALL = 1,	/* the node is an endpoint: its own traffic is judged too */
	RUNTIME_MASQUERADE4 = 2,	/* what pods send out of the cluster leaves under nat4 */
	RUNTIME_MASQUERADE6 = 4,
	RUNTIME_POD_SERVICES = 8,	/* from_pod looks for Services: not every socket of a pod does */
	RUNTIME_NODE_SOCKETS = 16,	/* only sockets of the node's own namespace are translated */
	RUNTIME_NODE_SERVES = 32,	/* processes of the node serve clients outside through frontends */
	RUNTIME_PROXIES = 64,	/* there are entries that redirect, or connections that were redirected */
	RUNTIME_TRACE_EACH = 128,	/* observers are told of each packet */
	RUNTIME_TRACE_FROM = 256,	/* and of where it came from */
	RUNTIME_OWN_FRAMES = 512,	/* what the segment floods for another machine is not served */
};

struct runtime {
	__u32 epoch;		/* raised after any change of policy, endpoint or ipcache: verdicts cached in
				 * conntrack and next hops found under another epoch are looked up again */
	__u32 uplink_ifindex;	/* device that reaches the other nodes */
	__u32 flags;		/* enum runtime_flag */
	__u32 tunnel_ifindex;	/* device that packets to other nodes' pods take; 0: they take the uplink, as they are */
	__u32 lb_epoch;		/* raised after a backend left a frontend or takes no more connections */
	__be16 tunnel_port;	/* UDP, while there is a tunnel */
	__u8  trace_flags;	/* TCP flags that observers are told of at once */
	__u8  pad;
	union address nat4;	/* of the node: what is sent in its name; zero: it has none of this family */
	union address nat6;
	__u32 trace_interval;	/* how often they are told of a connection in each direction, in ct_tick(); 0: of the first packet */
	__u32 pad2;
};

MAP(cirri_runtime, ARRAY, __u32, struct runtime, 1);

static __always_inline const struct runtime *runtime_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cirri_runtime, &zero);
}

static __always_inline __u32 runtime_lb_epoch(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime ? *(const volatile __u32 *)&runtime->lb_epoch : 0;
}

static __always_inline bool runtime_node_sockets(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime && runtime->flags & RUNTIME_NODE_SOCKETS;
}

static __always_inline bool runtime_host_firewall(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime && runtime->flags & RUNTIME_HOST_FIREWALL;
}

static __always_inline bool runtime_proxies(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime && runtime->flags & RUNTIME_PROXIES;
}

static __always_inline bool runtime_masquerades(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime && runtime->flags & (RUNTIME_MASQUERADE4 | RUNTIME_MASQUERADE6);
}

/* Read from the map each time it is asked. */
static __always_inline __u32 runtime_epoch(void)
{
	const struct runtime *runtime = runtime_get();

	return runtime ? *(const volatile __u32 *)&runtime->epoch : 0;
}
