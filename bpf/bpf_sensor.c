/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Programs that processes run: at the tracepoints of fork, exec and exit; and their TCP connections. */
#include "lib/sensor_kernel.h"
#include "lib/sensor.h"
#include "lib/sensor_scope.h"
#include "lib/sensor_path.h"
#include "lib/sensor_socket.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ARGS_ROOM	4096

struct exec_room {
	struct sensor_exec exec;
	char data[DATA_MASK + 1 + ARGS_ROOM];	/* what follows it, and room for the last piece */
};

/* Tracepoints of one CPU do not interrupt each other: they run with preemption off, and none of these in an interrupt. */
SCRATCH(exec_scratch, struct exec_room);

static __always_inline __u64 capabilities(const kernel_cap_t *from)
{
	__u64 set = 0;

	bpf_probe_read_kernel(&set, sizeof(set), from);
	return set;
}

static __always_inline void exec_cred(struct sensor_exec *exec, const struct cred *cred)
{
	exec->uid = cred->uid.val;
	exec->gid = cred->gid.val;
	exec->euid = cred->euid.val;
	exec->egid = cred->egid.val;
	exec->suid = cred->suid.val;
	exec->sgid = cred->sgid.val;
	exec->fsuid = cred->fsuid.val;
	exec->fsgid = cred->fsgid.val;
	exec->securebits = cred->securebits;
	exec->ns_user = cred->user_ns->ns.inum;
	exec->permitted = capabilities(&cred->cap_permitted);
	exec->effective = capabilities(&cred->cap_effective);
	exec->inheritable = capabilities(&cred->cap_inheritable);
	/* Nobody but the file gives capabilities to who is not root, beside the ambient ones. */
	if (exec->uid && exec->euid && exec->permitted & ~capabilities(&cred->cap_ambient))
		exec->flags |= SENSOR_FILE_CAPS;
}

static __always_inline void exec_namespaces(struct sensor_exec *exec, struct task_struct *task)
{
	struct nsproxy *spaces = task->nsproxy;
	struct pid *pid = task->thread_pid;
	struct upid own = {};

	exec->ns_uts = spaces->uts_ns->ns.inum;
	exec->ns_ipc = spaces->ipc_ns->ns.inum;
	exec->ns_mnt = spaces->mnt_ns->ns.inum;
	exec->ns_pid_children = spaces->pid_ns_for_children->ns.inum;
	exec->ns_net = spaces->net_ns->ns.inum;
	exec->ns_time = spaces->time_ns->ns.inum;
	exec->ns_time_children = spaces->time_ns_for_children->ns.inum;
	exec->ns_cgroup = spaces->cgroup_ns->ns.inum;
	bpf_probe_read_kernel(&own, sizeof(own),
			      (void *)pid + bpf_core_field_offset(struct pid, numbers) +
				      (pid->level & 31) * sizeof(own));
	exec->own_pid = own.nr;
	exec->ns_pid = BPF_CORE_READ(own.ns, ns.inum);
}

static __always_inline void exec_file(struct sensor_exec *exec, struct dentry *dentry)
{
	struct inode *inode = dentry->d_inode;
	__u32 mode = inode->i_mode;

	exec->inode = inode->i_ino;
	exec->links = inode->i_nlink;
	if (!dentry->d_hash.pprev)
		exec->flags |= SENSOR_DELETED;
	/* Not where the mount or the process forbids it: then the ids stayed what they were. */
	if (mode & S_ISUID && exec->euid != exec->uid && exec->euid == inode->i_uid.val)
		exec->flags |= SENSOR_SETUID;
	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && exec->egid != exec->gid &&
	    exec->egid == inode->i_gid.val)
		exec->flags |= SENSOR_SETGID;
}

/* Appends the arguments at *used*; returns how far it is used now. */
static __always_inline __u32 exec_args(struct exec_room *room, struct mm_struct *mm, __u32 used)
{
	struct sensor_exec *exec = &room->exec;
	__u64 begin = mm->arg_start, size = mm->arg_end - begin;

	exec->args_total = size;
	if (size > ARGS_ROOM) {
		exec->flags |= SENSOR_ARGS_CUT;
		size = ARGS_ROOM;
	}
	if (bpf_probe_read_user(&room->data[used & DATA_MASK], size, (void *)begin)) {
		exec->flags |= SENSOR_ARGS_UNREAD;
		return used;
	}
	exec->args_size = size;
	return used + size;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sensor_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct task_struct *leader = task->group_leader, *parent = task->real_parent;
	__u32 zero = 0, used, before, end;
	struct fs_struct *fs = task->fs;
	struct mm_struct *mm = task->mm;
	struct exec_room *room;
	struct sensor_exec *exec;

	if (!sensor_in_scope())
		return 0;
	room = bpf_map_lookup_elem(&exec_scratch, &zero);
	if (!room)
		return 0;
	exec = &room->exec;
	__builtin_memset(exec, 0, sizeof(*exec));
	exec->type = SENSOR_EXEC;
	exec->time = bpf_ktime_get_boot_ns();
	exec->start = leader->start_boottime;
	exec->cgroup = bpf_get_current_cgroup_id();
	exec->pid = task->tgid;
	exec->parent = parent->tgid;
	exec->parent_start = parent->group_leader->start_boottime;
	exec->login_uid = bpf_core_field_exists(task->loginuid) ? task->loginuid.val : ~0U;
	if (bprm->filename != bprm->interp)
		exec->flags |= SENSOR_SCRIPT;
	exec_cred(exec, task->cred);
	exec_namespaces(exec, task);
	exec_file(exec, mm->exe_file->f_path.dentry);

	used = path_names(&mm->exe_file->f_path, fs, room->data, 0, &end);
	exec->binary_size = used;
	if (end == PATH_ANONYMOUS)
		exec->flags = (exec->flags | SENSOR_ANONYMOUS) & ~SENSOR_DELETED;
	else if (end == PATH_CUT)
		exec->flags |= SENSOR_BINARY_CUT;
	before = used;
	used = path_names(&fs->pwd, fs, room->data, before, &end);
	exec->cwd_size = used - before;
	if (end != PATH_WHOLE)
		exec->flags |= SENSOR_CWD_CUT;
	used = exec_args(room, mm, used);
	sensor_tell(room, sizeof(*exec) + (used & (2 * DATA_MASK + 1)));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sensor_fork, struct task_struct *maker, struct task_struct *child)
{
	struct task_struct *parent = child->real_parent;
	struct sensor_fork fork = {};

	if (child->pid != child->tgid || !sensor_in_scope())	/* a thread; another node's */
		return 0;
	fork.type = SENSOR_FORK;
	fork.time = bpf_ktime_get_boot_ns();
	fork.start = child->start_boottime;
	fork.cgroup = bpf_get_current_cgroup_id();
	fork.pid = child->tgid;
	fork.parent = parent->tgid;
	fork.parent_start = parent->group_leader->start_boottime;
	fork.maker = maker->tgid;
	fork.maker_start = maker->group_leader->start_boottime;
	sensor_tell(&fork, sizeof(fork));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sensor_exit, struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	struct sensor_exit exit = {};

	/* Two last threads at once may both see none left: readers know a process that has ended. */
	if (signal->live.counter || !sensor_in_scope())
		return 0;
	exit.type = SENSOR_EXIT;
	exit.time = bpf_ktime_get_boot_ns();
	exit.start = task->group_leader->start_boottime;
	exit.cgroup = bpf_get_current_cgroup_id();
	exit.pid = task->tgid;
	exit.code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
	sensor_tell(&exit, sizeof(exit));
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(sensor_socket, struct sock *sk, int old, int new)
{
	struct socket_owner *owner, asking = {};

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (old == TCP_CLOSE && new == TCP_SYN_SENT) {
		if (!owner_set(&asking))
			return 0;
		asking.time = bpf_ktime_get_boot_ns();
		asking.state = OWNER_ASKING;
		owner = owner_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
		if (owner)
			*owner = asking;
	} else if (old == TCP_SYN_RECV && new == TCP_ESTABLISHED) {
		owner = owner_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
		if (owner && owner->state == OWNER_NONE) {
			owner->time = bpf_ktime_get_boot_ns();
			owner->state = OWNER_AWAITED;
		}
	} else {
		socket_step(sk, new);
	}
	return 0;
}

/* Nothing tells of accept(2) itself: who reads of a connection first has accepted it. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(sensor_read, struct sock *sk)
{
	struct socket_owner *owner = owner_of(sk, 0);

	if (owner && owner->state == OWNER_AWAITED && held_by_process(sk))
		socket_accepted(sk, owner);
	return 0;
}
