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

/* Puts the struct event behind the Ethernet header of the packet into the ring. */
SEC("tc/event")
int pass_event(struct __sk_buff *skb)
{
	struct event event;
	__u32 counter = EVENTS_SUBMITTED;
	__u64 *count;

	if (bpf_skb_load_bytes(skb, 14, &event, sizeof(event)) < 0)
		return 1;
	if (bpf_ringbuf_output(&cirri_events, &event, sizeof(event), BPF_RB_NO_WAKEUP) < 0)
		counter = EVENTS_LOST;
	count = bpf_map_lookup_elem(&cirri_event_counters, &counter);
	if (count)
		(*count)++;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
