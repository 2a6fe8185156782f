/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* events: fills the ring as the programs of a node do, with events from a table, one after the other.
 * A run makes as many as its packet's mark says.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "../../bpf/lib/event.h"

#define TEMPLATES 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TEMPLATES);
	__type(key, __u32);
	__type(value, struct event);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} bench_events SEC(".maps");

static __u32 next;

static long make(__u32 turn, void *context)
{
	__u32 at = next++ % TEMPLATES;
	struct event *template = bpf_map_lookup_elem(&bench_events, &at);
	struct event *event = bpf_ringbuf_reserve(&cirri_events, sizeof(*event), 0);

	(void)turn, (void)context;
	if (!event || !template) {
		event_count(EVENTS_LOST, 1);
		if (event)
			bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
		return 0;
	}
	*event = *template;
	event->timestamp = bpf_ktime_get_ns();
	event_count(EVENTS_SUBMITTED, 1);
	bpf_ringbuf_submit(event, event_wakeup());
	return 0;
}

SEC("tc")
int events(struct __sk_buff *skb)
{
	bpf_loop(skb->mark, make, NULL, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
