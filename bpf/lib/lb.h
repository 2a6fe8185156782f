/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* lb: Services and their backends.
 * A change writes the backends under a fresh service id and switches the service's entry.
 * Written by cirri.datapath (cirri_lb_reverse by bpf_sock.c).  Read by bpf_sock.c.
 * Mirror: libs/cirri/layout/lb.py
 */
#pragma once
#include "address.h"
#include "map.h"

struct lb_service_key {
	union address address;
	__be16 port;
	__u8   protocol;
	__u8   pad[5];
};

struct lb_service {
	__u32 id;
	__u32 count;		/* backends in slots 0..count-1 */
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

MAP_FLAGS(cirri_lb_services, HASH, struct lb_service_key, struct lb_service, 65536, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_lb_backends, HASH, struct lb_backend_key, struct lb_backend, 262144, BPF_F_NO_PREALLOC);
MAP(cirri_lb_reverse, LRU_HASH, struct lb_reverse_key, struct lb_reverse, 65536);

static __always_inline const struct lb_service *lb_service_lookup(const union address *address, __be16 port,
								  __u8 protocol)
{
	struct lb_service_key key;

	key.address = *address;
	key.port = port;
	key.protocol = protocol;
	__builtin_memset(key.pad, 0, sizeof(key.pad));
	return bpf_map_lookup_elem(&cirri_lb_services, &key);
}

/* Any backend, each as likely as the others; NULL if there is none. */
static __always_inline const struct lb_backend *lb_backend_choose(const struct lb_service *service)
{
	struct lb_backend_key key;
	__u32 count = service->count;

	if (!count)
		return NULL;
	key.service = service->id;
	key.slot = bpf_get_prandom_u32() % count;
	return bpf_map_lookup_elem(&cirri_lb_backends, &key);
}

static __always_inline void lb_reverse_key_set(struct lb_reverse_key *key, __u64 cookie,
					       const union address *address, __be16 port)
{
	key->cookie = cookie;
	key->address = *address;
	key->port = port;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}
