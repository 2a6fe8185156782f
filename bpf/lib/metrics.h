/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* metrics: packets and bytes by outcome and direction.
 * Written by bpf_pod.c, bpf_node.c, bpf_overlay.c, bpf_xdp.c.  Read by cirri.datapath, cirri.cli.
 * Mirror: libs/cirri/layout/metrics.py
 */
#pragma once
#include "map.h"

struct metrics {
	__u64 packets;
	__u64 bytes;
};

#define METRICS_INDEX(reason, direction) ((reason) * 4 + (direction))	/* reason 0: forwarded */

MAP(cirri_metrics, PERCPU_ARRAY, __u32, struct metrics, 1024);

/* *reason* is a positive drop reason, or 0: forwarded. */
static __always_inline void metrics_count(__u32 reason, __u32 direction, __u32 bytes)
{
	__u32 index = METRICS_INDEX(reason, direction);
	struct metrics *metrics = bpf_map_lookup_elem(&cirri_metrics, &index);

	if (!metrics)
		return;
	metrics->packets++;
	metrics->bytes += bytes;
}
