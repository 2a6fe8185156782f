/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sensor scope: which processes of this machine are the node's, for all that is told of processes.
 * Written by cirri.sensor.
 * Read by bpf_sensor.c, bpf_origin_udp.c.
 * Mirror: libs/cirri/layout/sensor.py
 */
#pragma once
#include "map.h"

/* Which processes are told of: those of a cgroup and below. */
struct sensor_scope {
	__u64 cgroup;	/* 0: all */
	__u32 level;	/* of that cgroup: 0 is the root */
	__u32 pad;
};

MAP(cirri_sensor_scope, ARRAY, __u32, struct sensor_scope, 1);

/* Is the current process one to be told of? */
static __always_inline bool sensor_in_scope(void)
{
	__u32 zero = 0;
	struct sensor_scope *scope = bpf_map_lookup_elem(&cirri_sensor_scope, &zero);

	return scope && (!scope->cgroup || bpf_get_current_ancestor_cgroup_id(scope->level) == scope->cgroup);
}
