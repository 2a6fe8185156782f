/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose a TCP connection is: kept beside its socket, from its first step to its end. */
#pragma once
#include "sensor_kernel.h"
#include "sensor.h"
#include "sensor_scope.h"

#define IPPROTO_TCP	6
#define AF_INET		2
#define AF_INET6	10

/* Of the kernel's headers. */
enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_CLOSE = 7,
};

enum owner_state {
	OWNER_NONE = 0,
	OWNER_ASKING = 1,	/* it connects, and has no answer yet */
	OWNER_AWAITED = 2,	/* a connection that was taken, which no process has touched yet */
	OWNER_CONNECTED = 3,
	OWNER_ACCEPTED = 4,
};

struct socket_owner {
	__u64 time;	/* of its first step */
	__u64 start;
	__u64 cgroup;
	__u32 pid;
	__u32 state;	/* enum owner_state */
};

SOCKET_STORAGE(socket_owners, struct socket_owner);

static __always_inline struct socket_owner *owner_of(struct sock *sk, __u64 flags)
{
	return bpf_sk_storage_get(&socket_owners, sk, NULL, flags);
}

/* A process holds the socket: what happens to it now is this process's doing, not a packet's or a timer's. */
static __always_inline bool held_by_process(const struct sock *sk)
{
	return sk->sk_lock.owned;
}

/* The current process is the owner; false: it is none to be told of. */
static __always_inline bool owner_set(struct socket_owner *owner)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	if (task->flags & PF_KTHREAD || !sensor_in_scope())
		return false;
	owner->start = task->group_leader->start_boottime;
	owner->cgroup = bpf_get_current_cgroup_id();
	owner->pid = task->tgid;
	return true;
}

static __always_inline void socket_tell(struct sock *sk, const struct socket_owner *owner, __u64 time,
					__u32 step, __u32 error)
{
	struct sensor_socket said = {};

	said.time = time;
	said.start = owner->start;
	said.cgroup = owner->cgroup;
	said.pid = owner->pid;
	said.type = SENSOR_SOCKET;
	said.cookie = bpf_get_socket_cookie(sk);
	said.step = step;
	said.error = error;
	said.accepted = owner->state == OWNER_ACCEPTED;
	said.family = sk->__sk_common.skc_family;
	/* skc_num is gone by the end. */
	said.local_port = __builtin_bswap16(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	said.remote_port = __builtin_bswap16(sk->__sk_common.skc_dport);
	if (said.family == AF_INET) {
		said.local[0] = sk->__sk_common.skc_rcv_saddr;
		said.remote[0] = sk->__sk_common.skc_daddr;
	} else {
		bpf_probe_read_kernel(said.local, sizeof(said.local), &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_probe_read_kernel(said.remote, sizeof(said.remote), &sk->__sk_common.skc_v6_daddr);
	}
	sensor_tell(&said, sizeof(said));
}

/* A process touches a connection that was taken and that none has touched before: it accepted it. */
static __always_inline void socket_accepted(struct sock *sk, struct socket_owner *owner)
{
	if (owner->state != OWNER_AWAITED || !owner_set(owner))
		return;
	owner->state = OWNER_ACCEPTED;
	socket_tell(sk, owner, owner->time, SENSOR_ACCEPT, 0);
}

static __always_inline void socket_step(struct sock *sk, int new)
{
	struct socket_owner *owner = owner_of(sk, 0);
	__u64 now = bpf_ktime_get_boot_ns();

	if (!owner)
		return;
	if (owner->state == OWNER_AWAITED && held_by_process(sk))
		socket_accepted(sk, owner);
	if (owner->state == OWNER_ASKING && new == TCP_ESTABLISHED) {
		owner->state = OWNER_CONNECTED;
		socket_tell(sk, owner, owner->time, SENSOR_CONNECT, 0);
	} else if (new == TCP_CLOSE) {
		if (owner->state == OWNER_ASKING)
			socket_tell(sk, owner, owner->time, SENSOR_CONNECT, sk->sk_err ?: SENSOR_NO_ANSWER);
		else if (owner->state == OWNER_CONNECTED || owner->state == OWNER_ACCEPTED)
			socket_tell(sk, owner, now, SENSOR_CLOSE, 0);
		owner->state = OWNER_NONE;
	}
}
