/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reads the packet without looking where it ends: the verifier refuses it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc/careless")
int careless(struct __sk_buff *skb)
{
	return *(unsigned char *)(long)skb->data;
}

char _license[] SEC("license") = "Dual BSD/GPL";
