/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Every map of bpf/lib: the compiler emits what a file declares, used or not. */
#include "lib/config.h"
#include "lib/conntrack.h"
#include "lib/endpoint.h"
#include "lib/event.h"
#include "lib/fragment.h"
#include "lib/ipcache.h"
#include "lib/l2.h"
#include "lib/lb.h"
#include "lib/masquerade.h"
#include "lib/metrics.h"
#include "lib/nexthop.h"
#include "lib/origin.h"
#include "lib/policy.h"
#include "lib/runtime.h"
#include "lib/sensor.h"
#include "lib/sensor_scope.h"

SEC("tc/timeout")
int timeout(struct __sk_buff *skb)
{
	return ct_timeout_any_s;
}

/* Two ends behind the Ethernet header (addresses, ports, protocol) become their key, in place. */
SEC("tc/key")
int make_key(struct __sk_buff *skb)
{
	struct {
		union address source, destination;
		__be16 source_port, destination_port;
		__u8 protocol, pad[3];
	} ends;
	struct packet packet = {};
	struct ct_key key;
	bool high;

	if (bpf_skb_load_bytes(skb, 14, &ends, sizeof(ends)) < 0)
		return -1;
	packet.source = ends.source;
	packet.destination = ends.destination;
	packet.source_port = ends.source_port;
	packet.destination_port = ends.destination_port;
	packet.protocol = ends.protocol;
	high = ct_key_set(&key, &packet);
	if (bpf_skb_store_bytes(skb, 14, &key, sizeof(key), 0) < 0)
		return -1;
	return high;
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
