/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* origins: which process is behind an end of a connection, while the sensor runs.
 * Written by bpf_origin_tcp.c, bpf_origin_udp.c.
 * Read by cirri.flows.
 * Mirror: libs/cirri/layout/origin.py
 */
#pragma once
#include "address.h"
#include "map.h"

/* A socket's own end, and for TCP the other one.  `local` of a socket that is bound to no address is
 * {ORIGIN_ANY, cookie of its network namespace}.
 */
struct origin_key {
	union address local;
	union address remote;	/* zero: see enum origin_kind */
	__be16 local_port;	/* ICMP: the identifier */
	__be16 remote_port;
	__u8   protocol;
	__u8   kind;		/* enum origin_kind */
	__u16  pad;
};

enum origin_kind {
	ORIGIN_PAIR = 1,	/* both ends, as the socket knows them */
	ORIGIN_SENDER = 2,	/* who opened a connection, or sent, from the local end last */
	ORIGIN_LISTENER = 3,	/* who takes TCP connections there */
};

#define ORIGIN_ANY	(~0ULL)

struct origin {
	__u64 start;	/* of the process, ns, CLOCK_BOOTTIME: with `pid` one process for ever */
	__u64 time;	/* when it said so, ns, CLOCK_BOOTTIME */
	__u64 rival;	/* when another process said so before; 0: none did */
	__u64 cookie;	/* of the socket */
	__u32 pid;
	__u32 pad;
};

MAP(cirri_origins, LRU_HASH, struct origin_key, struct origin, 65536);

/* In which network namespace (by its cookie) an address was seen last. */
MAP(cirri_origin_spaces, LRU_HASH, union address, __u64, 8192);
