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
