/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A file's path, as its process sees it: names, the last one first, until the process's root or that of all mounts. */
#pragma once
#include "sensor_kernel.h"

#define PATH_NAMES	48	/* folders that are looked into at most, mounts among them */
#define NAME_ROOM	256	/* NAME_MAX and a NUL */
#define PATH_ROOM	1280	/* bytes of a path at most: 1024 and the longest name */
#define DATA_MASK	4095

enum path_end {
	PATH_CUT = 0,	/* there is more */
	PATH_WHOLE = 1,
	PATH_ANONYMOUS = 2,	/* in no folder */
};

struct path_walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root;
	struct vfsmount *root_mnt;
	char *data;
	__u32 begin;
	__u32 used;
	__u32 end;	/* enum path_end */
	__u32 pad;
};

static long path_step(__u32 number, void *context)
{
	struct path_walk *walk = context;
	struct dentry *dentry = walk->dentry, *mnt_root, *parent;
	struct vfsmount *mnt = walk->mnt;
	struct mount *mount, *above;
	__u32 used = walk->used;
	long length;

	if (dentry == walk->root && mnt == walk->root_mnt) {
		walk->end = PATH_WHOLE;
		return 1;
	}
	mnt_root = BPF_CORE_READ(mnt, mnt_root);
	if (dentry == mnt_root) {
		mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount || !above) {
			walk->end = PATH_WHOLE;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (!parent || used - walk->begin > PATH_ROOM - NAME_ROOM)
		return 1;
	length = bpf_probe_read_kernel_str(walk->data + (used & DATA_MASK), NAME_ROOM,
					   BPF_CORE_READ(dentry, d_name.name));
	if (length <= 0)
		return 1;
	walk->used = used + length;
	if (parent == dentry) {
		walk->end = PATH_ANONYMOUS;
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

/* Appends the names of *path* at *used* of *data*; where it ended is in *end*.  Returns how far *data* is used now. */
static __always_inline __u32 path_names(const struct path *path, struct fs_struct *fs, char *data, __u32 used,
					__u32 *end)
{
	struct path_walk walk = {
		.dentry = BPF_CORE_READ(path, dentry),
		.mnt = BPF_CORE_READ(path, mnt),
		.root = BPF_CORE_READ(fs, root.dentry),
		.root_mnt = BPF_CORE_READ(fs, root.mnt),
		.data = data,
		.begin = used,
		.used = used,
	};

	bpf_loop(PATH_NAMES, path_step, &walk, 0);
	*end = walk.end;
	return walk.used;
}
