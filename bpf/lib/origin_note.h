/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How origins are noted, by programs that run in the process that is meant. */
#pragma once
#include <linux/in.h>
#include "config.h"
#include "origin.h"
#include "sensor_kernel.h"

#define AF_INET		2
#define AF_INET6	10

/* The process of *task* is behind *key* from now on. */
static __always_inline void origin_set(const struct origin_key *key, struct task_struct *task, __u64 cookie)
{
	struct task_struct *leader = task->group_leader;
	struct origin *before = bpf_map_lookup_elem(&cirri_origins, key);
	struct origin origin = {};

	origin.pid = task->tgid;
	origin.start = leader->start_boottime;
	origin.cookie = cookie;
	if (before) {
		if (before->pid == origin.pid && before->start == origin.start) {
			if (before->cookie == cookie)
				return;
			origin.rival = before->rival;
		} else {
			origin.rival = before->time;
		}
	}
	origin.time = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&cirri_origins, key, &origin, BPF_ANY);
}

static __always_inline void space_set(const union address *address, __u64 netns)
{
	__u64 *known = bpf_map_lookup_elem(&cirri_origin_spaces, address);

	if (!known || *known != netns)
		bpf_map_update_elem(&cirri_origin_spaces, address, &netns, BPF_ANY);
}

/* Of a socket that is bound to none, of either family. */
static __always_inline bool address_is_any(const union address *address)
{
	return !address->halves[0] &&
	       (!address->halves[1] || address->halves[1] == bpf_cpu_to_be64(0xffff00000000ULL));
}

static __always_inline void origin_local(struct origin_key *key, __u64 netns)
{
	if (address_is_any(&key->local)) {
		key->local.halves[0] = ORIGIN_ANY;
		key->local.halves[1] = netns;
	}
}
