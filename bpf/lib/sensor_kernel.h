/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's structs, as far as the sensor looks into them; where their fields lie in the kernel that
 * runs is filled in when the programs are loaded (CO-RE).  Nothing of this leaves the kernel.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { __u32 val; } kuid_t;
typedef struct { __u32 val; } kgid_t;
typedef struct { __u64 val; } kernel_cap_t;	/* before 6.3 two words: the same bytes */

struct ns_common { unsigned int inum; };
struct uts_namespace { struct ns_common ns; };
struct ipc_namespace { struct ns_common ns; };
struct mnt_namespace { struct ns_common ns; };
struct pid_namespace { struct ns_common ns; };
struct time_namespace { struct ns_common ns; };
struct cgroup_namespace { struct ns_common ns; };
struct user_namespace { struct ns_common ns; };
struct net { struct ns_common ns; };

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
	struct time_namespace *time_ns;
	struct time_namespace *time_ns_for_children;
	struct cgroup_namespace *cgroup_ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid, fsgid;
	unsigned int securebits;
	kernel_cap_t cap_inheritable, cap_permitted, cap_effective, cap_ambient;
	struct user_namespace *user_ns;
};

struct qstr { const unsigned char *name; };
struct hlist_bl_node { void **pprev; };

struct inode {
	unsigned short i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	unsigned long i_ino;
	unsigned int i_nlink;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount { struct dentry *mnt_root; };

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct file { struct path f_path; };

struct mm_struct {
	unsigned long arg_start, arg_end;
	struct file *exe_file;
};

typedef struct { int counter; } atomic_t;

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
};

struct task_struct {
	int pid, tgid;
	int exit_code;
	__u64 start_boottime;
	struct task_struct *group_leader, *real_parent;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	const struct cred *cred;
	struct pid *thread_pid;
	kuid_t loginuid;
	unsigned int flags;
};

struct linux_binprm {
	const char *filename;
	const char *interp;
};

struct in6_addr { __u8 bytes[16]; };

struct sock_common {
	__u32 skc_daddr, skc_rcv_saddr;
	__u16 skc_dport;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};

typedef struct { int owned; } socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	__u16 sk_protocol;
	int sk_err;
};

struct inet_sock { __u16 inet_sport; };

#pragma clang attribute pop

/* Of the kernel's headers. */
#define S_ISUID			0004000
#define S_ISGID			0002000
#define S_IXGRP			0000010
#define SIGNAL_GROUP_EXIT	4
#define PF_KTHREAD		0x00200000
