#!/usr/bin/env bash
# Runs a command under Debian's own kernel, in a virtual machine that sees this machine's files and can
# change none: by default, integration/kernel/load.py.  Ends with the command's exit code.
#   integration/kernel/run.sh [COMMAND...]
# Needs qemu-system-x86 and busybox-static, which `make kernels` installs; fetches the kernel (70 MB) once.
# QEMU, BUSYBOX: where they are; ACCEL=kvm where that works.
# Without it loading takes half a minute, and tests with packets take minutes.
# A test of hooks that only such a kernel has (kprobes, BPF LSM, fentry: load.py prints what is there):
#   integration/kernel/run.sh .venv/bin/python -m pytest -q -p no:cacheprovider -p no:xdist tests/sensor/FILE.py
# What is written must go below /run (TMPDIR) or /sys/fs/bpf: everything else is read-only.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD build=$PWD/integration/kernel/build
qemu=${QEMU:-qemu-system-x86_64} busybox=${BUSYBOX:-/bin/busybox}
fail() { printf 'kernel: %s\n' "$1" >&2; exit 1; }
command -v ${qemu%% *} >/dev/null || fail "${qemu%% *} is missing: apt-get install qemu-system-x86"
[ -x "$busybox" ] || fail "$busybox is missing: apt-get install busybox-static"
accel=${ACCEL:-tcg}

mkdir -p "$build/tree"
if ! ls "$build"/tree/boot/vmlinuz-* >/dev/null 2>&1; then
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ {print $2; exit}')
  (cd "$build" && apt-get -qq download "$package" && dpkg -x "$package"_*.deb tree && rm "$package"_*.deb)
fi
version=$(basename "$build"/tree/boot/vmlinuz-*) version=${version#vmlinuz-}
modules=$build/tree/lib/modules/$version
[ -f "$modules/modules.dep" ] || "$busybox" depmod -b "$build/tree" "$version"

# What it takes to see this machine's files, each module after those that it needs.
initrd=$build/initrd loads=
rm -rf "$initrd" && mkdir -p "$initrd"/{bin,sbin,lib,proc,sys,dev,host,modules}
cp "$busybox" "$initrd/bin/busybox"
for name in virtio_pci 9pnet_virtio 9p virtio_net; do
  for path in $(grep "/$name\.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac); do
    case " $loads " in *" $(basename "$path") "*) continue ;; esac
    cp "$modules/$path" "$initrd/modules/" && loads="$loads $(basename "$path")"
  done
done
ln -s ../bin/busybox "$initrd/sbin/modprobe" # for what the kernel itself asks for
ln -s "/host$build/tree/lib/modules" "$initrd/lib/modules"
printf '%q ' "${@:-.venv/bin/python}" >"$build/command"
[ $# -gt 0 ] || printf '%q' integration/kernel/load.py >>"$build/command"
cat >"$initrd/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $loads; do insmod /modules/\$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 host /host
for kind in proc sysfs devtmpfs; do mount -t \$kind \$kind /host/\$(echo \$kind | sed 's/fs//; s/devtmp/dev/'); done
mount -t securityfs security /host/sys/kernel/security; mount -t tracefs tracefs /host/sys/kernel/tracing
mount -t tmpfs run /host/run; mount -t bpf bpf /host/sys/fs/bpf; mount -t cgroup2 cgroup /host/sys/fs/cgroup
ip link set lo up
chroot /host /bin/sh -c 'cd $root && export HOME=/run TMPDIR=/run PYTHONDONTWRITEBYTECODE=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin && . $build/command'
echo "kernel: exit code \$?"
poweroff -f
INIT
chmod +x "$initrd/init"
(cd "$initrd" && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$build/initrd.gz"

# numpy wants more of a processor than the machine that qemu imitates by itself.
$qemu -accel "$accel" -cpu max -smp 2 -m 2048 -nographic -no-reboot -nic none \
  -kernel "$build/tree/boot/vmlinuz-$version" -initrd "$build/initrd.gz" -append "console=ttyS0 quiet panic=-1" \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null |
  tee "$build/console" | tr -d '\r'
grep -q "kernel: exit code 0" "$build/console"
