/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which process connects by TCP, and which takes connections: packets do not say it, since they leave their
 * socket on their way out of a pod.
 */
#include "lib/origin_note.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("sockops")
int origin_tcp(struct bpf_sock_ops *ctx)
{
	struct task_struct *task;
	struct origin_key key = { .protocol = IPPROTO_TCP };
	__u64 netns, cookie;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_TCP_LISTEN_CB &&
	    ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	netns = bpf_get_netns_cookie(ctx);
	/* Proxies of the node have pods' addresses, and are no pods. */
	if (netns == node_netns)
		return 1;
	if (ctx->family == AF_INET) {
		address_set4(&key.local, ctx->local_ip4);
		address_set4(&key.remote, ctx->remote_ip4);
	} else if (ctx->family == AF_INET6) {
		key.local.words[0] = ctx->local_ip6[0];
		key.local.words[1] = ctx->local_ip6[1];
		key.local.words[2] = ctx->local_ip6[2];
		key.local.words[3] = ctx->local_ip6[3];
		key.remote.words[0] = ctx->remote_ip6[0];
		key.remote.words[1] = ctx->remote_ip6[1];
		key.remote.words[2] = ctx->remote_ip6[2];
		key.remote.words[3] = ctx->remote_ip6[3];
	} else {
		return 1;
	}
	key.local_port = bpf_htons(ctx->local_port);
	cookie = bpf_get_socket_cookie(ctx);

	switch (ctx->op) {
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:	/* whoever runs now has nothing to do with it */
		space_set(&key.local, netns);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] != BPF_TCP_LISTEN)
			break;
		key.kind = ORIGIN_LISTENER;
		__builtin_memset(&key.remote, 0, sizeof(key.remote));
		origin_local(&key, netns);
		struct origin *known = bpf_map_lookup_elem(&cirri_origins, &key);
		if (known && known->cookie == cookie)
			bpf_map_delete_elem(&cirri_origins, &key);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		task = bpf_get_current_task_btf();
		key.kind = ORIGIN_LISTENER;
		__builtin_memset(&key.remote, 0, sizeof(key.remote));
		origin_local(&key, netns);
		origin_set(&key, task, cookie);
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		task = bpf_get_current_task_btf();
		space_set(&key.local, netns);
		key.remote_port = ctx->remote_port >> 16;
		key.kind = ORIGIN_PAIR;
		origin_set(&key, task, cookie);
		key.kind = ORIGIN_SENDER;
		__builtin_memset(&key.remote, 0, sizeof(key.remote));
		key.remote_port = 0;
		origin_set(&key, task, cookie);
		break;
	}
	return 1;
}
