/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* lb: Services and their backends.
 * A change writes the backends under a fresh service id and switches the frontend's entry.  The frontend's
 * number stays, and with it what clients with affinity were given.
 * Written by cirri.datapath (cirri_dsr, cirri_lb_reverse, cirri_lb_affinity, cirri_lb_flows by programs).
 * Read by bpf_sock.c, bpf_node.c, bpf_overlay.c, bpf_pod.c, bpf_xdp.c.
 * Mirror: libs/cirri/layout/lb.py
 */
#pragma once
#include "address.h"
#include "maglev.h"
#include "map.h"

/* Who asks: what an address and port mean depends on it. */
enum lb_scope {
	LB_INTERNAL = 0,	/* sockets and pods of this node */
	LB_EXTERNAL = 1,	/* what comes from the wire */
};

struct lb_service_key {
	union address address;
	__be16 port;
	__u8   protocol;
	__u8   scope;		/* enum lb_scope */
	__u8   pad[4];
};

enum lb_flag {
	LB_RANGES_ALLOW = 1,	/* only sources in cirri_lb_ranges are let in */
	LB_RANGES_DENY = 2,	/* sources in cirri_lb_ranges are not let in */
	LB_DROP_EMPTY = 4,	/* without a backend: no answer */
	LB_MAGLEV = 8,		/* a client's address and port tell its backend, on every node the same */
	LB_DSR = 16,		/* what goes to another node keeps its source, and is answered from there */
	LB_DSR_IPIP = 32,	/* that travels inside IP, else with an option */
};

struct lb_service {
	__u32 id;
	__u32 count;		/* backends in slots 0..count-1 */
	__u32 affinity_s;	/* a client keeps its backend so long after its last connection; 0: it does not */
	__u32 frontend;		/* number of the entry, from 1; the same as long as it is there */
	__u64 table;		/* where a backend is chosen (lib/maglev.h), if table_size is not 0 */
	__u32 table_size;	/* slots */
	__u32 seed;		/* of what a connection hashes to */
	__u32 flags;		/* enum lb_flag */
	__u32 pad;
};

struct lb_backend_key {
	__u32 service;		/* struct lb_service.id */
	__u32 slot;
};

struct lb_backend {
	union address address;
	__be16 port;
	__u16  pad[3];
};

enum lb_state {
	LB_TAKING = 1,		/* takes new connections */
	LB_KEEPING = 2,		/* keeps those that it has */
};

/* The backends of frontends that packets meet or with affinity, by themselves: enum lb_state. */
struct lb_alive_key {
	union address address;
	__u32 frontend;		/* struct lb_service.frontend */
	__be16 port;
	__u16  pad;
};

/* A connection that came from the wire or a pod, as its client sees it. */
struct lb_flow_key {
	union address client;
	union address address;	/* of the frontend */
	__be16 client_port;
	__be16 port;
	__u8   protocol;
	__u8   pad[3];
};

struct lb_flow {
	union address address;	/* of its backend */
	__u64 expires;		/* ns, CLOCK_MONOTONIC */
	__u32 epoch;		/* struct runtime.lb_epoch under which the backend was there */
	__be16 port;
	__be16 nat_port;	/* source port under which this node sends it on; LB_DIRECT; 0: to a pod of this node,
				 * or it was not sent on yet */
};

/* struct lb_flow.nat_port of what goes to another node under its own source, and is answered from there. */
#define LB_DIRECT bpf_htons(1)

/* struct ct_value.frontend of a connection whose frontend came with its first packet. */
#define LB_FRONTEND_DSR 0xffffffff

/* What the client of a connection talks to. */
struct lb_frontend {
	union address address;
	__be16 port;
	__u16  pad[3];
};

struct lb_range_key {
	__u32 prefix_len;	/* of frontend and address, in bits */
	__u32 frontend;
	union address address;
};

struct lb_affinity_key {
	union address client;	/* address, or the cookie of a socket's network namespace in the second half */
	__u32 frontend;
	__u32 pad;
};

struct lb_affinity {
	union address address;	/* of the backend */
	__u64 used;		/* ns, CLOCK_MONOTONIC, coarse: when the client connected last */
	__be16 port;
	__u16  pad[3];
};

struct lb_reverse_key {
	__u64 cookie;		/* of the socket */
	union address address;	/* of the backend */
	__be16 port;
	__u16  pad[3];
};

struct lb_reverse {
	union address address;	/* of the Service, as the client knows it */
	__be16 port;
	__u16  pad[3];
};

MAP_FLAGS(cirri_lb_services, HASH, struct lb_service_key, struct lb_service, 262144, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_lb_backends, HASH, struct lb_backend_key, struct lb_backend, 1048576, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_lb_alive, HASH, struct lb_alive_key, __u32, 1048576, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_lb_frontends, HASH, __u32, struct lb_frontend, 262144, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_lb_ranges, LPM_TRIE, struct lb_range_key, __u32, 262144, BPF_F_NO_PREALLOC);
MAP(cirri_lb_flows, LRU_HASH, struct lb_flow_key, struct lb_flow, 131072);
/* The frontend that a client named to the pod that it talks to (LB_FRONTEND_DSR), by what that pod sees. */
MAP(cirri_dsr, LRU_HASH, struct lb_flow_key, struct lb_frontend, 131072);
MAP(cirri_lb_affinity, LRU_HASH, struct lb_affinity_key, struct lb_affinity, 65536);
MAP(cirri_lb_reverse, LRU_HASH, struct lb_reverse_key, struct lb_reverse, 65536);

static __always_inline const struct lb_service *lb_service_lookup(const union address *address, __be16 port,
								  __u8 protocol, enum lb_scope scope)
{
	struct lb_service_key key;

	key.address = *address;
	key.port = port;
	key.protocol = protocol;
	key.scope = scope;
	__builtin_memset(key.pad, 0, sizeof(key.pad));
	return bpf_map_lookup_elem(&cirri_lb_services, &key);
}

/* What chooses the backend of a packet's connection: with Maglev the same on every node. */
static __always_inline __u32 lb_number(const struct lb_service *service, const union address *client,
				       __be16 client_port, __be16 port, __u8 protocol)
{
	if (!(service->flags & LB_MAGLEV))
		return bpf_get_prandom_u32();
	/* With affinity all that a client opens goes to one backend, also by way of several nodes. */
	return maglev_hash(client, service->affinity_s ? 0 : client_port, port, protocol, service->seed);
}

/* The backend for *number*; false if there is none.  Any number is as likely as the others. */
static __always_inline bool lb_choose_any(const struct lb_service *service, __u32 number,
					  struct lb_backend *chosen)
{
	const struct lb_backend *backend;
	struct lb_backend_key key;
	__u32 count = service->count, size = service->table_size;

	if (!count)
		return false;
	key.service = service->id;
	if (!size || !maglev_find(service->table, number % size, &key.slot))
		key.slot = number % count;
	backend = bpf_map_lookup_elem(&cirri_lb_backends, &key);
	if (!backend)
		return false;
	*chosen = *backend;
	return true;
}

/* The enum lb_state of a backend that *frontend* gave before; 0: it is gone. */
static __always_inline __u32 lb_state(__u32 frontend, const struct lb_backend *chosen)
{
	struct lb_alive_key key;
	const __u32 *state;

	key.address = chosen->address;
	key.frontend = frontend;
	key.port = chosen->port;
	key.pad = 0;
	state = bpf_map_lookup_elem(&cirri_lb_alive, &key);
	return state ? *state : 0;
}

/* A backend for a connection of *client*: with affinity the one it had, while that takes connections; else the one
 * that *number* (lb_number, or a random one) leads to.  False if there is none.
 */
static __always_inline bool lb_choose(const struct lb_service *service, const union address *client, __u32 number,
				      struct lb_backend *chosen)
{
	struct lb_affinity_key key;
	struct lb_affinity fresh, *known;
	__u64 now;

	if (!service->affinity_s)
		return lb_choose_any(service, number, chosen);
	now = bpf_ktime_get_coarse_ns();
	key.client = *client;
	key.frontend = service->frontend;
	key.pad = 0;
	known = bpf_map_lookup_elem(&cirri_lb_affinity, &key);
	if (known && known->used + (__u64)service->affinity_s * 1000000000 >= now) {
		chosen->address = known->address;
		chosen->port = known->port;
		if (lb_state(service->frontend, chosen) == LB_TAKING) {
			known->used = now;
			return true;
		}
	}
	if (!lb_choose_any(service, number, chosen))
		return false;
	fresh.address = chosen->address;
	fresh.used = now;
	fresh.port = chosen->port;
	__builtin_memset(fresh.pad, 0, sizeof(fresh.pad));
	bpf_map_update_elem(&cirri_lb_affinity, &key, &fresh, BPF_ANY);
	return true;
}

static __always_inline void lb_reverse_key_set(struct lb_reverse_key *key, __u64 cookie,
					       const union address *address, __be16 port)
{
	key->cookie = cookie;
	key->address = *address;
	key->port = port;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}
