/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sensor: which programs ran on this node, for observers.
 * Written by bpf_sensor.c (cirri_sensor_policies by cirri.sensor).
 * Read by one process at a time, whoever holds the ring.
 * Mirror: libs/cirri/layout/sensor.py
 */
#pragma once
#include "map.h"

enum sensor_type {
	SENSOR_EXEC = 1,	/* a process runs another program from now on */
	SENSOR_EXIT = 2,	/* the last thread of a process ended */
	SENSOR_FORK = 3,	/* a process began, with its maker's program */
	SENSOR_CALL = 4,	/* a system call that a policy speaks of: told by programs generated for it */
	SENSOR_SOCKET = 5,	/* a TCP connection begins or ends */
};

enum sensor_step {
	SENSOR_CONNECT = 1,	/* what a process asked for was answered, or will not be */
	SENSOR_ACCEPT = 2,	/* a process touched a connection that was taken for it */
	SENSOR_CLOSE = 3,	/* a connection that was told of is over */
};

#define SENSOR_NO_ANSWER	~0U	/* sensor_socket.error: the process gave up */

/* Bits of sensor_exec.flags. */
enum sensor_flag {
	SENSOR_BINARY_CUT = 1,	/* the path is longer than what is told: its beginning is missing */
	SENSOR_CWD_CUT = 2,
	SENSOR_ARGS_CUT = 4,	/* there are more arguments than are told */
	SENSOR_ARGS_UNREAD = 8,	/* they could not be read */
	SENSOR_ANONYMOUS = 16,	/* the program is in no folder: memfd_create(2) */
	SENSOR_DELETED = 32,	/* its name is gone */
	SENSOR_SETUID = 64,	/* it runs as another user, for the file's mode says so */
	SENSOR_SETGID = 128,
	SENSOR_FILE_CAPS = 256,	/* it has capabilities, for the file gives them */
	SENSOR_SCRIPT = 512,	/* the file asked for names this program as its interpreter */
};

/* What every record begins with.  Process: its number in the first pid namespace, and when it began
 * (ns, CLOCK_BOOTTIME); the two together are one process for ever.
 */
#define SENSOR_HEAD			\
	__u64 time;	/* ns, CLOCK_BOOTTIME */	\
	__u64 start;			\
	__u64 cgroup;			\
	__u32 pid;			\
	__u32 type	/* enum sensor_type */

struct sensor_fork {
	SENSOR_HEAD;
	__u64 parent_start;
	__u64 maker_start;
	__u32 parent;
	__u32 maker;	/* whose program it runs: the parent, but for CLONE_PARENT */
};

struct sensor_exit {
	SENSOR_HEAD;
	__u32 code;	/* as wait(2) tells it */
	__u32 pad;
};

struct sensor_exec {
	SENSOR_HEAD;
	__u64 parent_start;
	__u64 permitted;	/* capabilities */
	__u64 effective;
	__u64 inheritable;
	__u64 inode;
	__u32 parent;
	__u32 own_pid;	/* in its own pid namespace */
	__u32 uid;
	__u32 gid;
	__u32 euid;
	__u32 egid;
	__u32 suid;
	__u32 sgid;
	__u32 fsuid;
	__u32 fsgid;
	__u32 login_uid;	/* ~0: none */
	__u32 securebits;
	__u32 ns_uts;	/* namespaces, by inode */
	__u32 ns_ipc;
	__u32 ns_mnt;
	__u32 ns_pid;
	__u32 ns_pid_children;
	__u32 ns_net;
	__u32 ns_time;
	__u32 ns_time_children;
	__u32 ns_cgroup;
	__u32 ns_user;
	__u32 links;	/* names that the file has */
	__u32 flags;	/* enum sensor_flag */
	__u32 binary_size;	/* of what follows: names, the last one of the path first, NUL after each */
	__u32 cwd_size;	/* likewise */
	__u32 args_size;	/* as the kernel keeps them: NUL after each, the program's own name first */
	__u32 args_total;	/* of all there are, bytes */
};

/* Its arguments; texts (and addresses of sockets) follow, in the arguments' order. */
struct sensor_call {
	SENSOR_HEAD;
	__u64 arg0;
	__u64 arg1;
	__u64 arg2;
	__u64 arg3;
	__u64 arg4;
	__u32 hook;	/* which one of which policy: cirri.tracing says */
	__u32 action;	/* 0: told only; else the signal that was sent */
	__u32 size0;	/* bytes of what follows, for each argument; 0: it is a number */
	__u32 size1;
	__u32 size2;
	__u32 size3;
	__u32 size4;
	__u32 selector;	/* the first of the hook's that fits */
	__u64 result;	/* of hooks that are told when the call is over */
};

/* Its process is whose the connection is; time: of a close its own, else of the connection's first step. */
struct sensor_socket {
	SENSOR_HEAD;
	__u64 cookie;
	__u32 local[4];	/* as on the wire; of IPv4 the first word */
	__u32 remote[4];
	__u32 step;	/* enum sensor_step */
	__u32 error;	/* of a connect that failed: errno, or SENSOR_NO_ANSWER */
	__u16 family;
	__u16 local_port;	/* as numbers of this machine */
	__u16 remote_port;
	__u16 accepted;	/* the other end began the connection */
};

/* Policies that hold for some pods only: bit N for policy N, by the processes' cgroup. */
MAP(cirri_sensor_policies, HASH, __u64, __u64, 16384);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);	/* bytes */
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} cirri_sensor_events SEC(".maps");

enum sensor_counter {
	SENSOR_TOLD = 0,
	SENSOR_LOST = 1,	/* for which there was no room */
	SENSOR_COUNTERS = 2,
};

MAP(cirri_sensor_counters, PERCPU_ARRAY, __u32, __u64, SENSOR_COUNTERS);

#define SENSOR_WAKE_FROM	(1 << 19)
#define SENSOR_WAKE_TO		(SENSOR_WAKE_FROM + (1 << 14))

/* Readers look every 100 ms; woken only while the ring passes an eighth of its size. */
static __always_inline void sensor_tell(void *record, __u64 size)
{
	__u64 waiting = bpf_ringbuf_query(&cirri_sensor_events, BPF_RB_AVAIL_DATA);
	__u64 wake = waiting >= SENSOR_WAKE_FROM && waiting < SENSOR_WAKE_TO ? BPF_RB_FORCE_WAKEUP
									       : BPF_RB_NO_WAKEUP;
	__u32 counter = bpf_ringbuf_output(&cirri_sensor_events, record, size, wake) ? SENSOR_LOST : SENSOR_TOLD;
	__u64 *count = bpf_map_lookup_elem(&cirri_sensor_counters, &counter);

	/* Added to as one: a program here may be interrupted by another that tells. */
	if (count)
		__sync_fetch_and_add(count, 1);
}
