/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* At no hook: cirri.datapath runs it (BPF_PROG_TEST_RUN) to remove connections.  What is untold of them is told before,
 * for only programs write events, and at once before: what passes in between nobody would tell.
 */
#include "lib/tell.h"

#define REST_KEYS	64	/* at once */
#define REST_AT		ETH_HLEN	/* the first key, in what stands for a packet, which begins with a number of 64 bits */
#define REST_CROWDED	(3 << 20)	/* bytes in the ring: packets need the rest themselves */

/* Of a request of *type*, which conntrack keeps. */
static __always_inline __u16 icmp_reply_type(__u8 protocol, __u16 type)
{
	return protocol == IPPROTO_ICMP && type == ICMP_ECHO ? ICMP_ECHOREPLY : type + 1;
}

/* Tells what is untold of a direction, for the last time. */
static __always_inline void rest_end(const struct event *sight, struct ct_value *value)
{
	__u64 sum;

	if (trace_tell(sight, value))
		return;
	sum = ct_claim(value, sight->reply == 2);
	event_forgo(CT_PACKETS(sum), CT_BYTES(sum));
}

/* What is untold of the connection in *value*. */
static __always_inline void rest_tell(const struct ct_key *key, struct ct_value *value)
{
	bool high = value->flags & CT_FROM_HIGH;
	struct event sight = {};

	sight.source = high ? key->high : key->low;
	sight.destination = high ? key->low : key->high;
	sight.source_port = high ? key->high_port : key->low_port;
	sight.destination_port = high ? key->low_port : key->high_port;
	sight.source_identity = value->source_identity;
	sight.destination_identity = value->destination_identity;
	sight.protocol = key->protocol;
	sight.type = EVENT_CONNECTION_CLOSED;
	sight.reply = 1;
	if (value->forward_untold)
		rest_end(&sight, value);
	if (!value->reply_untold)
		return;
	sight_turn(&sight);
	if (key->protocol == IPPROTO_ICMP || key->protocol == IPPROTO_ICMPV6) {
		__be16 identifier = sight.destination_port;

		sight.destination_port = bpf_htons(icmp_reply_type(key->protocol, bpf_ntohs(sight.source_port)));
		sight.source_port = identifier;
	}
	rest_end(&sight, value);
}

/* Removes the connection whose key stands at *at*, unless a packet of it came meanwhile: it expires at *now* or later.
 * false: there is no key any more.
 */
GLOBAL int rest_remove(struct __sk_buff *skb, __u32 at, __u64 now)
{
	struct ct_value *value;
	struct ct_key key;

	if (bpf_skb_load_bytes(skb, at, &key, sizeof(key)))
		return 0;
	value = bpf_map_lookup_elem(&cirri_ct, &key);
	if (!value || value->expires >= now)
		return 1;
	if (!ct_is_silent(&key, value))
		rest_tell(&key, value);
	/* Once more: to tell took longer than it takes from here to the removal. */
	if (value->expires < now)
		bpf_map_delete_elem(&cirri_ct, &key);
	return 1;
}

/* How many of the keys were dealt with: fewer, if the ring is crowded, and skb->mark is 0.  *now*: its first 8 bytes. */
SEC("tc/rest")
int rest(struct __sk_buff *skb)
{
	__u64 now;
	__u32 n;

	if (bpf_skb_load_bytes(skb, 0, &now, sizeof(now)))
		return 0;
	for (n = 0; n < REST_KEYS; n++) {
		if (!skb->mark && bpf_ringbuf_query(&cirri_events, BPF_RB_AVAIL_DATA) >= REST_CROWDED)
			break;
		if (!rest_remove(skb, REST_AT + n * sizeof(struct ct_key), now))
			break;
	}
	return n;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
