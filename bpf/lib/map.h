/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One way to declare a map: pinned by name, so that every program and every
 * restart of the loader meets the same map.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define MAP_FLAGS(NAME, TYPE, KEY, VALUE, MAX, FLAGS)		\
	struct {						\
		__uint(type, BPF_MAP_TYPE_##TYPE);		\
		__type(key, KEY);				\
		__type(value, VALUE);				\
		__uint(max_entries, MAX);			\
		__uint(map_flags, FLAGS);			\
		__uint(pinning, LIBBPF_PIN_BY_NAME);		\
	} NAME SEC(".maps")

#define MAP(NAME, TYPE, KEY, VALUE, MAX) MAP_FLAGS(NAME, TYPE, KEY, VALUE, MAX, 0)

/* A struct of each CPU, of this file's programs alone: what is too large for the stack (512 bytes for a whole
 * chain of calls).  Programs of one CPU do not interrupt each other: tc runs them with softirqs off, and
 * what they redirect is sent on after they returned.
 */
#define SCRATCH(NAME, TYPE)					\
	struct {						\
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);	\
		__type(key, __u32);				\
		__type(value, TYPE);				\
		__uint(max_entries, 1);				\
	} NAME SEC(".maps")

/* A struct beside each socket, from when a program asks for it to the socket's end; of this file's programs alone. */
#define SOCKET_STORAGE(NAME, TYPE)				\
	struct {						\
		__uint(type, BPF_MAP_TYPE_SK_STORAGE);		\
		__uint(map_flags, BPF_F_NO_PREALLOC);		\
		__type(key, int);				\
		__type(value, TYPE);				\
	} NAME SEC(".maps")
