"""What a kubelet makes of pods that the chart renders: decisions only.

Results are fields of messages of the container runtime's interface (``cri.proto``); who gives them to a
runtime is :mod:`cirri.testing.chartnode`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Manifest = dict[str, Any]
Fields = dict[str, Any]
NAMESPACE = "kube-system"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the API server's certificate."""
_BITS = """\
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"""
CAPABILITIES = tuple(_BITS.split())
"""By their bits."""
_SPREAD = {"HostToContainer": 1, "Bidirectional": 2}
_POD, _CONTAINER, _NODE = 0, 1, 2


class Pod(NamedTuple):
    """A pod of a workload of the chart."""

    name: str
    """The workload's."""
    labels: dict[str, str]
    spec: Manifest


class Rights(NamedTuple):
    """Who a process is and what it may."""

    user: int
    capabilities: frozenset[str]
    """That it has or could get."""
    seccomp: bool
    no_more: bool
    """No program that it starts may more (no_new_privs)."""
    read_only: bool
    """Its root file system."""


def pods(manifests: list[Manifest]) -> dict[str, Pod]:
    """One pod of each workload, by the workload's name."""
    found = {}
    for one in manifests:
        if one["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
            name, template = one["metadata"]["name"], one["spec"]["template"]
            found[name] = Pod(name, template["metadata"]["labels"], template["spec"])
    return found


def containers(pod: Pod) -> list[Manifest]:
    """Every container, those first that must end before others start."""
    return [*pod.spec.get("initContainers", ()), *pod.spec["containers"]]


def contents(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    """The Secrets' files, by the Secret's name."""
    found = {}
    for one in manifests:
        if one["kind"] == "Secret":
            coded = {key: base64.b64decode(text).decode() for key, text in (one.get("data") or {}).items()}
            found[one["metadata"]["name"]] = coded | (one.get("stringData") or {})
    return found


def secret_files(volume: Manifest, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What a volume of a Secret has in it.  Raises: KeyError, if the chart renders no such Secret or key."""
    about = volume["secret"]
    found = secrets[about["secretName"]]
    if "items" not in about:
        return dict(found)
    return {item["path"]: found[item["key"]] for item in about["items"]}


def security(pod: Pod, container: Manifest) -> Manifest:
    """What holds for a container: its own words, and the pod's where it has none."""
    return {**pod.spec["securityContext"], **container["securityContext"]}


def expected(pod: Pod, container: Manifest, root: Iterable[str] = CAPABILITIES) -> Rights:
    """What the chart says of a container's process, where the machine's root may *root*.

    Raises: ValueError, if a kubelet would refuse it: it is to be nobody's root, and is root.
    """
    said = security(pod, container)
    if said.get("runAsNonRoot") and said["runAsUser"] == 0:
        raise ValueError(f"{container['name']} would run as root")
    privileged = bool(said.get("privileged"))
    held = root if privileged else said["capabilities"].get("add", ())
    return Rights(
        user=said["runAsUser"],
        capabilities=frozenset(held),
        seccomp=not privileged and said["seccompProfile"]["type"] == "RuntimeDefault",
        no_more=said.get("allowPrivilegeEscalation") is False,
        read_only=said["readOnlyRootFilesystem"],
    )


def seen(status: str, mountinfo: str) -> Rights:
    """What ``/proc/PID/status`` and ``/proc/PID/mountinfo`` say of a process."""
    about = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    bits = int(about["CapBnd"], 16) | int(about["CapPrm"], 16)
    (root,) = [words for line in mountinfo.splitlines() if (words := line.split())[4] == "/"]
    return Rights(
        user=int(about["Uid"].split()[1]),
        capabilities=frozenset(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1),
        seccomp=about["Seccomp"].strip() == "2",
        no_more=about["NoNewPrivs"].strip() == "1",
        read_only="ro" in root[5].split(","),
    )


def sandbox(pod: Pod, logs: Path) -> Fields:
    """The PodSandboxConfig of a pod whose containers write to *logs*."""
    context: Fields = {"namespace_options": _spaces(pod), "seccomp": {"profile_type": 0}}
    if any(one["securityContext"].get("privileged") for one in containers(pod)):
        context["privileged"] = True
    return {
        "metadata": {"name": pod.name, "uid": f"uid-{pod.name}", "namespace": NAMESPACE},
        "hostname": "" if pod.spec.get("hostNetwork") else pod.name,
        "log_directory": str(logs),
        "labels": pod.labels,
        "linux": {"security_context": context},
    }


def container_config(
    pod: Pod, container: Manifest, folders: Mapping[str, Path], environment: Mapping[str, str]
) -> Fields:
    """The ContainerConfig of *container*; *folders*: what each volume is on the node."""
    said, rights = security(pod, container), expected(pod, container)
    context: Fields = {
        "namespace_options": _spaces(pod),
        "run_as_user": {"value": rights.user},
        "readonly_rootfs": rights.read_only,
        "no_new_privs": rights.no_more,
        "privileged": bool(said.get("privileged")),
        "seccomp": {"profile_type": 0 if rights.seccomp else 1},
        "supplemental_groups": [said["fsGroup"]] if "fsGroup" in said else [],
    }
    if "runAsGroup" in said:
        context["run_as_group"] = {"value": said["runAsGroup"]}
    if given := said.get("capabilities"):
        context["capabilities"] = {
            "add_capabilities": given.get("add", []),
            "drop_capabilities": given.get("drop", []),
        }
    return {
        "metadata": {"name": container["name"]},
        "image": {"image": container["image"]},
        "command": container.get("command", []),
        "args": container.get("args", []),
        "envs": [{"key": key, "value": value} for key, value in environment.items()],
        "mounts": [_mount(one, folders[one["name"]]) for one in mounts(pod, container)],
        "log_path": f"{pod.name}-{container['name']}.log",
        "linux": {"security_context": context},
    }


def mounts(pod: Pod, container: Manifest) -> list[Manifest]:
    """What a container mounts; volume ``token`` where the pod may speak with the API server."""
    token = {"name": "token", "mountPath": str(ACCOUNT), "readOnly": True}
    return [*container["volumeMounts"], *([token] if pod.spec["automountServiceAccountToken"] else [])]


def environment(
    pod: Pod, container: Manifest, secrets: Mapping[str, Mapping[str, str]], node: str
) -> dict[str, str]:
    """The variables that the chart gives a container on *node*."""
    fields = {"spec.nodeName": node, "metadata.name": pod.name, "metadata.namespace": NAMESPACE}
    found = {}
    for one in container.get("env", ()):
        source = one.get("valueFrom", {})
        if key := source.get("secretKeyRef"):
            found[one["name"]] = secrets[key["name"]][key["key"]]
        elif field := source.get("fieldRef"):
            found[one["name"]] = fields[field["fieldPath"]]
        else:
            found[one["name"]] = str(one["value"])
    return found


def questions(container: Manifest, addresses: list[str]) -> list[str]:
    """What to get for a container to be healthy, at each of the pod's *addresses*, startup's probe first."""
    found = []
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        if kind in container:
            about = container[kind]["httpGet"]
            for host in [about["host"]] if "host" in about else addresses:
                literal = f"[{host}]" if ":" in host else host
                found.append(f"http://{literal}:{about['port']}{about['path']}")
    return list(dict.fromkeys(found))


def _spaces(pod: Pod) -> Fields:
    network = _NODE if pod.spec.get("hostNetwork") else _POD
    pid = _NODE if pod.spec.get("hostPID") else _POD if pod.spec.get("shareProcessNamespace") else _CONTAINER
    return {"network": network, "pid": pid, "ipc": _POD}


def _mount(about: Manifest, source: Path) -> Fields:
    return {
        "container_path": about["mountPath"],
        "host_path": str(source),
        "readonly": about.get("readOnly", False),
        "propagation": _SPREAD.get(about.get("mountPropagation", ""), 0),
    }
