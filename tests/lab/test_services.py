"""Which processes a lab consists of, and that each gets exactly what it needs."""

from pathlib import Path

from cirri.lab.contract import contracts
from cirri.lab.services import CLI_USER, accounts, context, processes, user
from cirri.lab.topology import Topology, paths

LAB = Topology("x", 2)
WHERE = paths("x", Path("/cgroup"))
ACCOUNTS = [user(s, host) for s, host in accounts(LAB, contracts())]
PASSWORDS = {name: f"secret-{name}" for name in (*ACCOUNTS, CLI_USER)}
PROCESSES = {p.name: p for p in processes(LAB, WHERE, contracts(), PASSWORDS)}


def test_one_process_for_each_service_and_node() -> None:
    assert list(PROCESSES) == [
        "nats-server",
        *("kubernetes", "identity", "ipam", "policy", "lab-fabric"),
        *("datapath-node1", "health-node1", "datapath-node2", "health-node2"),
        *("internet-names", "internet-resolver", "internet-web", "internet-cdn"),
    ]


def test_each_speaks_as_itself() -> None:
    for name in ACCOUNTS:
        env = PROCESSES[name].env
        assert (env["CIRRI_NATS_USER"], env["CIRRI_NATS_PASSWORD"]) == (name, f"secret-{name}")


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
