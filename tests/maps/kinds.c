/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One map of each kind that Cirri uses, constants to set, and programs that touch them. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include "lib/map.h"

struct prefix {
	__u32 bits;
	__u8  bytes[4];
};

MAP(cirri_hash, HASH, __u32, __u64, 8192);
MAP_FLAGS(cirri_sparse, HASH, __u32, __u64, 1024, BPF_F_NO_PREALLOC);
MAP_FLAGS(cirri_trie, LPM_TRIE, struct prefix, __u64, 256, BPF_F_NO_PREALLOC);
MAP(cirri_lru, LRU_HASH, __u32, __u64, 128);
MAP(cirri_array, ARRAY, __u32, __u64, 16);
MAP(cirri_cpus, PERCPU_ARRAY, __u32, __u32, 4);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cirri_ring SEC(".maps");

const volatile __u32 answer = 7;
const volatile __u16 port = 80;
const volatile __u64 large = 1;

/* Counts on its CPU, then returns what was set before load. */
SEC("tc/answer")
int give_answer(struct __sk_buff *skb)
{
	__u32 index = 1, *count = bpf_map_lookup_elem(&cirri_cpus, &index);

	if (count)
		(*count)++;
	return answer + port + (large >> 32);
}

/* Changes the packet and the context. */
SEC("tc/change")
int change(struct __sk_buff *skb)
{
	__u8 last = 0xee;

	bpf_skb_store_bytes(skb, skb->len - 1, &last, 1, 0);
	skb->mark += 1;
	skb->cb[1] = skb->ifindex;
	return -5;
}

/* A record for each run: the mark twice, after a record that is thrown away. */
SEC("tc/emit")
int emit(struct __sk_buff *skb)
{
	__u32 *record = bpf_ringbuf_reserve(&cirri_ring, 64, 0);

	if (record)
		bpf_ringbuf_discard(record, 0);
	record = bpf_ringbuf_reserve(&cirri_ring, 12, 0);
	if (!record)
		return 1;
	record[0] = skb->mark;
	record[1] = skb->mark;
	record[2] = 0;
	/* An odd mark wakes nobody, as the shipped programs do. */
	bpf_ringbuf_submit(record, skb->mark & 1 ? BPF_RB_NO_WAKEUP : 0);
	return 0;
}

MAP(cirri_calls, ARRAY, __u32, __u64, 2);

const volatile __u32 slot = 0;

/* Counts in the slot set before load, so that two loads can be told apart. */
SEC("cgroup/connect4")
int count(struct bpf_sock_addr *ctx)
{
	__u32 index = slot;
	__u64 *calls = bpf_map_lookup_elem(&cirri_calls, &index);

	if (calls)
		__sync_fetch_and_add(calls, 1);
	return 1;
}

/* The same on a device; lets the packet pass to nobody else. */
SEC("tc/count")
int count_packet(struct __sk_buff *skb)
{
	__u32 index = slot;
	__u64 *calls = bpf_map_lookup_elem(&cirri_calls, &index);

	if (calls)
		__sync_fetch_and_add(calls, 1);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
