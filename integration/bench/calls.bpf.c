/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a tracepoint at all system calls costs by itself: the peer of tracing policies in row B29. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("raw_tp/sys_enter")
int empty(void *context)
{
	return 0;
}
