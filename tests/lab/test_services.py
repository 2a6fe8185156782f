"""Which processes a lab consists of, and that each gets exactly what it needs."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cirri.lab.cli import lab
from cirri.lab.contract import contracts
from cirri.lab.services import CLI_USER, accounts, context, processes, user
from cirri.lab.topology import Topology, paths
from cirri.model import optional

LAB = Topology("x", 2)
WHERE = paths("x", Path("/cgroup"))
ACCOUNTS = [user(s, host) for s, host in accounts(LAB, contracts({}))]
PASSWORDS = {name: f"secret-{name}" for name in (*ACCOUNTS, CLI_USER)}
PROCESSES = {p.name: p for p in processes(LAB, WHERE, contracts({}), PASSWORDS)}
ENVIRONMENTS = [p.env for p in PROCESSES.values() if "CIRRI_NATS_USER" in p.env]


def test_one_process_for_each_service_and_node() -> None:
    assert list(PROCESSES) == [
        "nats-server",
        *("kubernetes", "identity", "ipam", "policy", "relay", "lab-fabric"),
        *(
            "datapath-node1",
            "dnsproxy-a-node1",
            "dnsproxy-b-node1",
            "l7proxy-node1",
            "envoy-node1",
            "bgp-node1",
            "gobgpd-node1",
            "health-node1",
            "l2-node1",
            "flows-node1",
            "sensor-node1",
        ),
        *(
            "datapath-node2",
            "dnsproxy-a-node2",
            "dnsproxy-b-node2",
            "l7proxy-node2",
            "envoy-node2",
            "bgp-node2",
            "gobgpd-node2",
            "health-node2",
            "l2-node2",
            "flows-node2",
            "sensor-node2",
        ),
        *("internet-names", "internet-resolver", "internet-web", "internet-cdn"),
        "bird",
    ]


@pytest.mark.parametrize(
    ("parts", "absent"),
    [((), set()), (("flows",), {"flows", "relay"}), (("l2", "bgp", "sensor"), {"l2", "bgp", "sensor"})],
)
def test_what_is_left_out(parts: tuple[str, ...], absent: set[str]) -> None:
    everything = {service.name for service in contracts({})}

    assert {service.name for service in contracts(optional.without(parts))} == everything - absent


def test_only_what_is_optional_can_be_left_out() -> None:
    said = CliRunner().invoke(lab, ["up", "--without", "policy"])

    assert said.exit_code == 2
    assert "'policy' cannot be left out; bgp, flows, l2, sensor can" in said.output


def test_each_speaks_as_itself() -> None:
    said = [(env["CIRRI_NATS_USER"], env["CIRRI_NATS_PASSWORD"]) for env in ENVIRONMENTS]

    assert set(said) == {(name, f"secret-{name}") for name in ACCOUNTS}
    assert len(said) == len(ACCOUNTS) + len(LAB.node_names)  # of two DNS proxies on each


def test_replicas_of_a_node_share_their_sockets() -> None:
    first, second = (PROCESSES[f"dnsproxy-{replica}-node2"] for replica in ("a", "b"))

    assert first.sockets == second.sockets
    assert [(s.name, s.address, s.port, s.mark, s.netns) for s in first.sockets] == [
        (name, address, 10053, 0x0B00, "cirri-x-node2")
        for name, address in (("udp4", "127.0.0.1"), ("tcp4", "127.0.0.1"), ("udp6", "::1"), ("tcp6", "::1"))
    ]
    assert [p.env["CIRRI_REPLICA"] for p in (first, second)] == ["a", "b"]
    assert [p.env["CIRRI_INSTANCE"] for p in (first, second)] == ["dnsproxy-a-node2@x", "dnsproxy-b-node2@x"]


def test_envoy_has_no_password() -> None:
    envoy, service = PROCESSES["envoy-node1"], PROCESSES["l7proxy-node1"]

    assert not any("NATS" in name for name in envoy.env)
    assert (envoy.netns, envoy.cgroup) == (service.netns, service.cgroup)


def test_no_password_is_on_a_command_line() -> None:
    assert not any("secret" in word for p in PROCESSES.values() for word in p.argv)


def test_node_services_live_on_their_node() -> None:
    process = PROCESSES["datapath-node2"]

    assert process.netns == "cirri-x-node2"
    assert process.cgroup == "/cgroup/cirri/x/node2/services"
    assert process.env | {"CIRRI_NATS_PASSWORD": ""} == {
        "CIRRI_NODE": "node2",
        "CIRRI_NATS_URL": "nats://192.168.3.1:4222",
        "CIRRI_NATS_USER": "datapath-node2",
        "CIRRI_NATS_PASSWORD": "",
        "CIRRI_STATE_DIR": "/var/lib/cirri/x/node2",
        "CIRRI_RUN_DIR": "/run/cirri/x/node2",
        "CIRRI_INSTANCE": "datapath-node2@x",
        "CIRRI_BPFFS": "/sys/fs/bpf/cirri/x/node2",
        "CIRRI_CGROUP": "/cgroup/cirri/x/node2",
        "CIRRI_NODE_ADDRESSES": "192.168.3.12,fd00:192:168:3::c",
    }


def test_cluster_services_live_in_the_fabric() -> None:
    assert {PROCESSES[n].netns for n in ("nats-server", "policy", "lab-fabric")} == {"cirri-x-fabric"}


def test_the_command_line_is_told_how_to_get_there() -> None:
    said = context(LAB, WHERE, PASSWORDS)

    assert said["netns"] == "cirri-x-fabric"
    assert said["password"] == "secret-cli"
    assert said["bpffs"] == {n: f"/sys/fs/bpf/cirri/x/{n}" for n in ("node1", "node2")}
