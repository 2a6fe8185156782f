"""A machine that cannot serve is told why in one sentence, and left as it was."""

import platform

import pytest

from .conftest import Clone

KERNEL = platform.release()
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
CONTAINER = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
NO_BPF = "nodev\tproc\nnodev\tcgroup2\n\text4\n"
OS = "/etc/os-release"
FILESYSTEMS = "/proc/filesystems"

BPF_REFUSED = f"needs a kernel with the BPF file system (CONFIG_BPF_SYSCALL=y), and {KERNEL} is without."
REFUSED: dict[str, tuple[tuple[str, ...], dict[str, str | None], str]] = {
    "not root": (NOBODY, {}, "must run as root (sudo make setup), because it installs packages."),
    "root of a container": (
        CONTAINER,
        {},
        "needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this container withholds "
        "(docker run --privileged gives them).",
    ),
    "Ubuntu": (
        (),
        {
            OS: 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n'
            'PRETTY_NAME="Ubuntu 24.04 LTS"\n'
        },
        "needs Debian 12 or 13, and this is Ubuntu 24.04 LTS.",
    ),
    "Debian 11": (
        (),
        {
            OS: 'ID=debian\nVERSION_ID="11"\nVERSION_CODENAME=bullseye\n'
            'PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n'
        },
        "needs Debian 12 or 13, and this is Debian GNU/Linux 11 (bullseye).",
    ),
    "Debian testing": (
        (),
        {OS: 'ID=debian\nVERSION_CODENAME=forky\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n'},
        "needs Debian 12 or 13, and this is Debian GNU/Linux forky/sid.",
    ),
    "without a name": ((), {OS: "ID=alpine\n"}, "needs Debian 12 or 13, and this is alpine."),
    "unknown system": ((), {OS: ""}, "needs Debian 12 or 13, and this is Linux."),
    "no BTF": (
        (),
        {"/sys/kernel/btf": None},
        "needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are, "
        f"and {KERNEL} has no /sys/kernel/btf/vmlinux.",
    ),
    "no cgroup v2": (
        (),
        {FILESYSTEMS: "nodev\tcgroup\nnodev\tbpf\n"},
        "needs a kernel with cgroup v2 (CONFIG_CGROUPS=y, no cgroup_no_v2=all at boot), "
        f"and {KERNEL} is without.",
    ),
    "no BPF": ((), {FILESYSTEMS: NO_BPF}, BPF_REFUSED),
    "wrong system before not root": (
        NOBODY,
        {OS: "ID=arch\n"},
        "needs Debian 12 or 13, and this is arch.",
    ),
}


@pytest.mark.parametrize(("words", "hide", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(clone: Clone, words: tuple[str, ...], hide: dict[str, str | None], said: str) -> None:
    before = clone.files()
    assert clone.setup(*words, hide=hide) == (1, "", f"cirri setup: {said}\n")
    assert clone.files() == before


@pytest.mark.parametrize(
    "release",
    [
        'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
        'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
        'ID=raspbian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
        'ID=linuxmint\nVERSION_ID="6"\nVERSION_CODENAME=faye\nDEBIAN_CODENAME=bookworm\n',
    ],
    ids=["Debian 12", "Debian 13", "Raspbian", "made of Debian 12"],
)
def test_accepted(clone: Clone, release: str) -> None:
    """Shown by what is refused next."""
    code, _, said = clone.setup(hide={OS: release, FILESYSTEMS: NO_BPF})
    assert (code, said) == (1, f"cirri setup: {BPF_REFUSED}\n")
