/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* maglev: tables whose slots name backends of a Service.  What a connection hashes to is a slot, so that every
 * node gives it the same backend, and few connections move when a backend comes or goes.
 * A table's name is a digest of all it is made from: it is never changed, and frontends that are alike share it.
 * Written by cirri.datapath.  Read by bpf_sock.c, bpf_node.c, bpf_overlay.c, bpf_pod.c, bpf_xdp.c.
 * Mirror: libs/cirri/layout/maglev.py
 */
#pragma once
#include "address.h"
#include "map.h"

#define MAGLEV_PART 220		/* slots: with its key and the kernel's own fields a part has 512 bytes */

struct maglev_key {
	__u64 table;
	__u32 part;
	__u32 pad;
};

struct maglev_part {
	__u16 slots[MAGLEV_PART];	/* struct lb_backend_key.slot */
};

MAP_FLAGS(cirri_lb_maglev, HASH, struct maglev_key, struct maglev_part, 262144, BPF_F_NO_PREALLOC);

static __always_inline __u32 rotate_left(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

/* A number for a connection.  The frontend's address is left out: a node port has another one on each node.
 * Source: Linux, include/linux/jhash.h, jhash2() of six words.
 */
static __always_inline __u32 maglev_hash(const union address *client, __be16 client_port, __be16 port,
					 __u8 protocol, __u32 seed)
{
	__u32 a, b, c;

	a = b = c = 0xdeadbeef + (6 << 2) + seed;
	a += client->words[0];
	b += client->words[1];
	c += client->words[2];
	a -= c; a ^= rotate_left(c, 4);  c += b;
	b -= a; b ^= rotate_left(a, 6);  a += c;
	c -= b; c ^= rotate_left(b, 8);  b += a;
	a -= c; a ^= rotate_left(c, 16); c += b;
	b -= a; b ^= rotate_left(a, 19); a += c;
	c -= b; c ^= rotate_left(b, 4);  b += a;
	a += client->words[3];
	b += (__u32)client_port << 16 | port;
	c += protocol;
	c ^= b; c -= rotate_left(b, 14);
	a ^= c; a -= rotate_left(c, 11);
	b ^= a; b -= rotate_left(a, 25);
	c ^= b; c -= rotate_left(b, 16);
	a ^= c; a -= rotate_left(c, 4);
	b ^= a; b -= rotate_left(a, 14);
	c ^= b; c -= rotate_left(b, 24);
	return c;
}

/* The backend in a slot of a table; false if there is no such table. */
static __always_inline bool maglev_find(__u64 table, __u32 slot, __u32 *backend)
{
	struct maglev_key key = { .table = table, .part = slot / MAGLEV_PART };
	const struct maglev_part *part = bpf_map_lookup_elem(&cirri_lb_maglev, &key);
	__u32 place = slot % MAGLEV_PART;

	/* The verifier does not follow the arithmetic, and the compiler is not to know that it is right. */
	asm volatile("" : "+r"(place));
	if (!part || place >= MAGLEV_PART)
		return false;
	*backend = part->slots[place];
	return true;
}
