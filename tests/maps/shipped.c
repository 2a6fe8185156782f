/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map of bpf/lib: the compiler emits what a file declares, used or not. */
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/endpoint.h"
#include "lib/event.h"
#include "lib/fragment.h"
#include "lib/ipcache.h"
#include "lib/lb.h"
#include "lib/metrics.h"
#include "lib/policy.h"
#include "lib/runtime.h"

SEC("tc/timeout")
int timeout(struct __sk_buff *skb)
{
	return ct_timeout_any_s;
}

char _license[] SEC("license") = "Dual BSD/GPL";
