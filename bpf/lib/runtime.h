/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the node's datapath service may change while programs run.
 * Written by cirri.datapath.  Read by every program.
 * Mirror: libs/cirri/layout/runtime.py
 */
#pragma once
#include "map.h"

struct runtime {
	__u32 epoch;		/* raised after any change of policy, endpoint or ipcache identity:
				 * verdicts cached in conntrack under another epoch are taken again */
	__u32 uplink_ifindex;	/* device that reaches the other nodes */
};

MAP(cirri_runtime, ARRAY, __u32, struct runtime, 1);
