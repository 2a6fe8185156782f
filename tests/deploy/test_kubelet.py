"""What deploy/images/check.py makes of the rendered chart, and of what the kernel says of processes."""

from pathlib import Path

import pytest

from cirri.testing import kubelet
from cirri.testing.containerd import message
from cirri.testing.kubelet import CAPABILITIES, Pod, Rights
from cirri.testing.rendering import render

ALL = {
    "bgpControlPlane": {"enabled": True},
    "l2announcements": {"enabled": True},
    "sensor": {"enabled": True},
}
MANIFESTS = render(ALL)
PODS = kubelet.pods(MANIFESTS)
SECRETS = kubelet.contents(MANIFESTS)
CONTAINERS = [(pod, one) for pod in PODS.values() for one in kubelet.containers(pod)]
STATUS = (
    "Name:\tpython\nUid:\t{uid}\t{uid}\t0\t0\nCapPrm:\t{prm:016x}\nCapBnd:\t{bnd:016x}\n"
    "NoNewPrivs:\t{n}\nSeccomp:\t{s}\n"
)
MOUNTS = "10 9 0:31 / / {how},relatime - overlay overlay rw\n11 10 0:40 / /tmp rw - tmpfs tmpfs rw\n"


def bits(*names: str) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


def test_bits_are_the_kernels() -> None:
    wanted = {
        "CHOWN": 0,
        "NET_BIND_SERVICE": 10,
        "NET_ADMIN": 12,
        "SYS_PTRACE": 19,
        "SYS_ADMIN": 21,
        "SYS_NICE": 23,
    }
    wanted |= {"SYS_RESOURCE": 24, "SETFCAP": 31, "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40}
    assert {name: CAPABILITIES.index(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("pod", "container", "rights"),
    [
        ("cirri-nats", "own-storage", Rights(0, frozenset({"CHOWN"}), True, True, True)),
        ("cirri-nats", "nats", Rights(65532, frozenset(), True, True, True)),
        ("cirri-policy", "policy", Rights(65532, frozenset(), True, True, True)),
        ("cirri-datapath", "datapath", Rights(0, frozenset(CAPABILITIES), False, False, True)),
        ("cirri-datapath", "cni", Rights(0, frozenset(), True, True, True)),
        ("cirri-bgp", "gobgpd", Rights(0, frozenset({"NET_BIND_SERVICE"}), True, True, True)),
        ("cirri-l7proxy", "envoy", Rights(0, frozenset({"NET_ADMIN", "NET_RAW"}), True, True, True)),
    ],
)
def test_rights(pod: str, container: str, rights: Rights) -> None:
    (about,) = [one for one in kubelet.containers(PODS[pod]) if one["name"] == container]
    assert kubelet.expected(PODS[pod], about) == rights


@pytest.mark.parametrize(("pod", "about"), CONTAINERS, ids=lambda x: x["name"] if isinstance(x, dict) else "")
def test_a_process_that_is_as_the_chart_says_is_seen_so(pod: Pod, about: kubelet.Manifest) -> None:
    wanted = kubelet.expected(pod, about)
    held = bits(*wanted.capabilities)
    facts = {"uid": wanted.user, "prm": held, "bnd": held, "n": int(wanted.no_more), "s": 2 * wanted.seccomp}
    mounts = MOUNTS.format(how="ro")
    assert kubelet.seen(STATUS.format(**facts), mounts) == wanted
    kill = held ^ bits("KILL")
    others: tuple[dict[str, int], ...] = (
        {"uid": 7}, {"prm": kill, "bnd": kill}, {"n": 1 - facts["n"]}, {"s": 2 - facts["s"]},
    )  # fmt: skip
    seen = [kubelet.seen(STATUS.format(**{**facts, **other}), mounts) for other in others]
    assert wanted not in seen
    assert kubelet.seen(STATUS.format(**facts), MOUNTS.format(how="rw")) != wanted


def test_root_where_nobody_may_be_is_refused() -> None:
    pod = PODS["cirri-policy"]
    (about,) = pod.spec["containers"]
    root = {**about, "securityContext": {**about["securityContext"], "runAsUser": 0}}
    with pytest.raises(ValueError, match="policy would run as root"):
        kubelet.expected(pod, root)


@pytest.mark.parametrize(("pod", "about"), CONTAINERS, ids=lambda x: x["name"] if isinstance(x, dict) else "")
def test_everything_that_a_container_names_is_there(pod: Pod, about: kubelet.Manifest) -> None:
    folders = {one["name"]: Path("/v") / one["name"] for one in pod.spec["volumes"]} | {"token": Path("/t")}
    values = kubelet.environment(pod, about, SECRETS, "node1")
    config = message("ContainerConfig", **kubelet.container_config(pod, about, folders, values))
    assert list(config.command) == about["command"]
    assert {one.container_path for one in config.mounts} >= {
        one["mountPath"] for one in about["volumeMounts"]
    }
    for volume in pod.spec["volumes"]:
        if "secret" in volume:
            assert all(kubelet.secret_files(volume, SECRETS).values())


def test_messages_to_the_runtime() -> None:
    nodes, sensor, relay = PODS["cirri-datapath"], PODS["cirri-sensor"], PODS["cirri-relay"]
    spaces = {
        pod.name: message("PodSandboxConfig", **kubelet.sandbox(pod, Path("/l"))).linux.security_context
        for pod in (nodes, sensor, relay, PODS["cirri-bgp"])
    }
    options = {name: one.namespace_options for name, one in spaces.items()}
    assert {name: (one.network, one.pid) for name, one in options.items()} == {
        "cirri-datapath": (2, 1), "cirri-sensor": (2, 2), "cirri-relay": (0, 1), "cirri-bgp": (2, 0),
    }  # fmt: skip
    assert [name for name, one in spaces.items() if one.privileged] == ["cirri-datapath"]
    datapath = nodes.spec["containers"][0]
    folders = {one["name"]: Path("/v") for one in nodes.spec["volumes"]}
    config = message("ContainerConfig", **kubelet.container_config(nodes, datapath, folders, {"A": "b"}))
    spread = {one.container_path: one.propagation for one in config.mounts}
    assert (spread["/sys/fs/bpf"], spread["/var/run/netns"], spread["/tmp"]) == (2, 1, 0)
    context = config.linux.security_context
    assert (context.privileged, context.readonly_rootfs, context.run_as_user.value) == (True, True, 0)
    assert context.HasField("run_as_user")
    assert [(one.key, one.value) for one in config.envs] == [("A", "b")]


def test_who_speaks_with_the_api_server_has_a_token() -> None:
    having = {
        pod.name for pod, one in CONTAINERS if any(m["name"] == "token" for m in kubelet.mounts(pod, one))
    }
    assert having == {"cirri-kubernetes"}


def test_questions_are_the_probes_at_each_address() -> None:
    both = ["192.0.2.1", "2001:db8::1"]
    asked = {one["name"]: kubelet.questions(one, both) for _, one in CONTAINERS}
    assert asked["datapath"] == [
        "http://192.0.2.1:9970/healthz",
        "http://[2001:db8::1]:9970/healthz",
        "http://192.0.2.1:9970/readyz",
        "http://[2001:db8::1]:9970/readyz",
    ]
    assert asked["nats"][0] == "http://127.0.0.1:8222/healthz"
    assert len(asked["nats"]) == 3
    assert {name for name, urls in asked.items() if not urls} == {"own-storage", "cni", "gobgpd", "envoy"}
