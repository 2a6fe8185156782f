"""The real plugin and the real service: what container runtimes ask, rightly and wrongly."""

import asyncio
import json
import subprocess
import time
from ipaddress import ip_network
from typing import Any, NamedTuple

import pytest

from cirri.netlink import channel_in, namespace, read
from cirri.testing.node import PLUGIN, Node, answering, node, run
from cirri.testing.objects import allow
from cirri.testing.sockets import Ear, Flood
from cirri.testing.wait import eventually

ATTACHMENTS = "cni.dev/valid-attachments"


class Wrong(NamedTuple):
    """A request and the exact answer."""

    id: str
    code: int
    message: str
    config: dict[str, Any] | str | None = None
    command: str = "ADD"
    env: dict[str, str] = {}  # noqa: RUF012


WRONG = [
    Wrong(
        "not JSON",
        6,
        "the network configuration is not JSON: JSON is malformed: object keys must be strings (byte {end})",
        '{"socket":"SOCKET",hello}',
    ),
    Wrong(
        "truncated",
        6,
        "the network configuration is not JSON: Input data was truncated",
        '{"socket":"SOCKET"',
    ),
    Wrong(
        "version of the future",
        1,
        "cniVersion '9.0.0' is not supported; supported are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        {"cniVersion": "9.0.0"},
    ),
    Wrong(
        "version is a number",
        7,
        "network configuration, field 'cniVersion': is not a string",
        {"cniVersion": 1},
    ),
    Wrong(
        "GC before it existed",
        1,
        "GC in cniVersion '1.0.0' is not supported; supported are 1.1.0",
        {"cniVersion": "1.0.0", ATTACHMENTS: []},
        "GC",
    ),
    Wrong(
        "no name",
        7,
        "network configuration, field 'name': is null, not letters, digits, '_', '.' or '-'",
        {"name": None},
    ),
    Wrong(
        "bad name",
        7,
        "network configuration, field 'name': is \"-x\", not letters, digits, '_', '.' or '-'",
        {"name": "-x"},
    ),
    Wrong("no type", 7, "network configuration, field 'type': is \"\", not the plugin's name", {"type": ""}),
    Wrong(
        "ipam of another plugin",
        2,
        'field \'ipam\' with value {"type":"host-local"} is not supported: cirri assigns addresses itself',
        {"ipam": {"type": "host-local"}},
    ),
    Wrong(
        "a field nobody knows",
        2,
        "field 'bridge' with value \"cni0\" is not supported: the plugin does not know it",
        {"bridge": "cni0"},
    ),
    Wrong(
        "second in its chain",
        7,
        "network configuration, field 'prevResult': is given; cirri-cni must be the first plugin of its list",
        {"prevResult": {"ips": []}},
    ),
    Wrong("dns is a list", 7, "network configuration, field 'dns': is [], not an object", {"dns": []}),
    Wrong(
        "CHECK without a result",
        7,
        "network configuration, field 'prevResult': is missing, CHECK needs it",
        {},
        "CHECK",
    ),
    Wrong(
        "GC without a list",
        7,
        "network configuration, field 'cni.dev/valid-attachments': is missing, GC needs it",
        {},
        "GC",
    ),
    Wrong(
        "GC with a wrong list",
        7,
        "network configuration, field 'cni.dev/valid-attachments': "
        "Object missing required field `ifname` - at `$[0]`",
        {ATTACHMENTS: [{"containerID": "a"}]},
        "GC",
    ),
    Wrong(
        "no such command",
        4,
        "CNI_COMMAND is 'PUT', not one of ADD, DEL, CHECK, STATUS, GC, VERSION",
        {},
        "PUT",
    ),
    Wrong(
        "nothing in the environment",
        4,
        "CNI_CONTAINERID is missing; CNI_IFNAME is missing; CNI_NETNS is missing; "
        "CNI_ARGS does not hold K8S_POD_NAMESPACE=...;K8S_POD_NAME=...",
        {},
        "ADD",
        {"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": "", "CNI_ARGS": ""},
    ),
    Wrong(
        "interface name too long",
        4,
        "CNI_IFNAME is 'abcdefghijklmnop', not a name of 1 to 15 characters without '/', ':' or spaces",
        {},
        "ADD",
        {"CNI_IFNAME": "abcdefghijklmnop"},
    ),
    Wrong(
        "relative namespace", 4, "CNI_NETNS is 'ns1', not an absolute path", {}, "ADD", {"CNI_NETNS": "ns1"}
    ),
    Wrong(
        "namespace that is a file",
        3,
        "container {node}-web: /etc/passwd is not a network namespace: Invalid argument",
        {},
        "ADD",
        {"CNI_NETNS": "/etc/passwd"},
    ),
    Wrong(
        "no such namespace",
        3,
        "container {node}-web: /run/netns/cirri-no is not a network namespace: No such file or directory",
        {},
        "ADD",
        {"CNI_NETNS": "/run/netns/cirri-no"},
    ),
    Wrong(
        "interface is taken",
        100,
        "the container has an interface lo already",
        {},
        "ADD",
        {"CNI_IFNAME": "lo"},
    ),
]


def test_wrong_requests_get_exact_answers_and_change_nothing() -> None:
    async def main() -> None:
        async with node() as here:
            await here.pod("web", {"app": "web"})
            state = world(here)
            answers = {}
            for case in WRONG:
                outcome = await here.cni(case.command, "web", config=_config(here, case.config), **case.env)
                answers[case.id] = (outcome.code, outcome.output.get("code"), outcome.output.get("msg"))
            end = str(len('{"socket":"",') + len(str(here.run_dir / "cni.sock")))
            words = {w.id: w.message.replace("{node}", here.name).replace("{end}", end) for w in WRONG}
            expected = {w.id: (w.code, w.code, words[w.id]) for w in WRONG}
            assert answers == expected
            await eventually(lambda: here.status.addresses_used == 0)
            await eventually(lambda: world(here) == state, what="the world as it was")

    asyncio.run(main())


def _config(here: Node, config: dict[str, Any] | str | None) -> dict[str, Any] | str | None:
    """Text that is no configuration still has to name the socket of this service."""
    return config.replace("SOCKET", str(here.run_dir / "cni.sock")) if isinstance(config, str) else config


def world(here: Node) -> tuple[Any, ...]:
    """What an ADD would change: devices, files, records."""
    with namespace(f"/run/netns/{here.name}") as fd, channel_in(fd) as channel:
        devices = set(read.links(channel))
    files = sorted(path.name for path in (here.state_dir / "endpoints").iterdir())
    return devices, files, dict(here.endpoints)


def test_results_are_those_of_the_callers_version() -> None:
    async def main() -> None:
        async with node() as here:
            outcomes = {}
            for version in ("0.4.0", "1.0.0", "1.1.0"):
                name = version.replace(".", "-")
                await here.pod(name, {"app": "web"})
                outcome = await here.cni(
                    "ADD", name, config={"cniVersion": version, "dns": {"nameservers": ["10.9.9.9"]}}
                )
                assert outcome.code == 0, outcome.output
                outcomes[version] = outcome.output
            assert [ip.get("version") for ip in outcomes["0.4.0"]["ips"]] == ["4", "6"]
            assert "version" not in outcomes["1.0.0"]["ips"][0]
            assert "mtu" not in outcomes["1.0.0"]["interfaces"][1]
            assert outcomes["1.1.0"]["interfaces"][1]["mtu"] == 1500
            assert outcomes["1.1.0"]["dns"] == {"nameservers": ["10.9.9.9"]}
            versions = await here.cni("VERSION", config={"cniVersion": "1.0.0"})
            assert versions.output == {
                "cniVersion": "1.0.0",
                "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            }

    asyncio.run(main())


def test_add_twice_is_refused_and_del_twice_is_not() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            again = await here.cni("ADD", "web")
            assert (again.code, again.output["msg"]) == (
                100,
                f"container {here.name}-web has the interface eth0 already",
            )
            check = {"prevResult": web.result}
            assert (await here.cni("CHECK", "web", config=check)).code == 0
            for _ in range(2):
                assert (await here.cni("DEL", "web")).code == 0
            gone = await here.cni("CHECK", "web", config=check)
            assert gone.code == 3
            assert (await here.cni("ADD", "web")).code == 0, "the same container may come back"

    asyncio.run(main())


def test_check_finds_damage() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            check = {"prevResult": web.result}
            run("ip", "-n", web.netns, "address", "del", f"{web.ipv4}/32", "dev", "eth0")
            damaged = await here.cni("CHECK", "web", config=check)
            assert (damaged.code, damaged.output["msg"]) == (100, f"eth0 lacks the address {web.ipv4}")
            run("ip", "-n", web.netns, "link", "del", "eth0")
            damaged = await here.cni("CHECK", "web", config=check)
            assert damaged.output["msg"] == "the container has no interface eth0"

    asyncio.run(main())


def test_gc_ends_what_is_not_named() -> None:
    async def main() -> None:
        async with node() as here:
            for name in ("keep", "lost", "gone"):
                await here.add(name, app=name)
            valid = [{"containerID": f"{here.name}-keep", "ifname": "eth0"}]
            assert (await here.cni("GC", config={ATTACHMENTS: valid})).code == 0
            await eventually(lambda: [e.pod for e in here.endpoints.values()] == ["keep"])
            await eventually(lambda: here.status.addresses_used == 2)

    asyncio.run(main())


def test_a_deletion_while_the_service_is_away_is_kept() -> None:
    async def main() -> None:
        async with node() as here:
            await here.add("web", app="web")
            here.kill()
            assert (await here.cni("DEL", "web")).code == 0
            assert len(list((here.run_dir / "deleteQueue").glob("*.json"))) == 1
            refused = await here.cni("ADD", "web")
            assert (refused.code, refused.output["msg"]) == (
                11,
                f"the datapath service of this node does not answer at {here.run_dir}/cni.sock",
            )
            assert (await here.cni("STATUS")).code == 50
            assert (await here.cni("VERSION")).code == 0
            here.start()
            await answering(here)
            await eventually(lambda: not here.endpoints, what="the endpoint is gone")
            assert not list((here.run_dir / "deleteQueue").glob("*.json"))

    asyncio.run(main())


def test_spent_addresses_are_said_and_come_back() -> None:
    async def main() -> None:
        async with node(cidrs=("10.52.250.0/29",)) as here:
            for count in range(5):
                await here.add(f"p{count}", app="web")
            await here.pod("late", {"app": "web"})
            refused = await here.cni("ADD", "late")
            assert (refused.code, refused.output["msg"]) == (
                101,
                "no free IPv4 address in 10.52.250.0/29: all 5 are in use. "
                "Add a prefix to the cluster's pools, or move pods to other nodes",
            )
            status = await here.cni("STATUS")
            assert (status.code, status.output["msg"]) == (50, "all 5 IPv4 addresses are in use")
            await eventually(lambda: here.status.addresses_used == 5)
            await here.delete(here.pods["p0"])
            await eventually(lambda: here.status.addresses_used == 4)
            added = await here.cni("ADD", "late")
            assert added.code == 0, added.output

    asyncio.run(main())


def test_without_a_range_or_a_policy_it_says_to_try_again() -> None:
    async def main() -> None:
        async with node(cidrs=(), service=False) as here:
            here.start()
            await eventually((here.run_dir / "cni.sock").exists)
            await here.pod("web", {"app": "web"})
            refused = await here.cni("ADD", "web")
            assert (refused.code, refused.output["msg"]) == (
                11,
                "this node has not been given a pod address range yet",
            )

    asyncio.run(main())


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_passes_before_policy_from_the_first_instant(family: int) -> None:
    """A peer sends from before a pod exists until after it runs, under a policy that lets nobody in."""
    starts = 12

    async def main() -> None:
        async with node() as here:
            await here.enforced(await here.cluster.put(allow("closed", to="web")))
            await here.add("peer", app="peer")
            network = ip_network(here.cidrs[0 if family == 4 else 1])
            targets = [str(network[n]) for n in range(3, 3 + starts)]
            reached = 0
            with Flood(here.pods["peer"].netns, targets, 80) as flood:
                for count in range(starts):
                    pod = await here.pod(f"w{count}", {"app": "web"})
                    with Ear(pod.netns, 80, family) as ear:
                        await here.plug(pod)
                        assert (pod.ipv4 if family == 4 else pod.ipv6) == targets[count]
                        before = flood.sent
                        await eventually(lambda n=before: flood.sent > n + starts)  # type: ignore[misc]
                        reached += ear.heard()
            assert reached == 0
            assert flood.sent > 100 * starts
            await here.enforced(await here.cluster.put(allow("open", to="web", peer="peer", ports=("UDP",))))
            with Flood(here.pods["peer"].netns, targets, 80), Ear(pod.netns, 80, family) as ear:
                await eventually(lambda: ear.heard() > 0, what="the flood does arrive where it may")

    asyncio.run(main())


def test_hostile_text_reaches_the_service_unharmed() -> None:
    """Quotes, control characters and bytes that are no UTF-8 in what a runtime passes."""

    async def main() -> None:
        async with node() as here:
            await here.pod("web", {"app": "web"})
            refused = await here.cni("ADD", "web", CNI_CONTAINERID='a"b\\c\n\t\x7f')
            assert refused.code == 4
            assert "CNI_CONTAINERID is 'a\"b\\\\c\\n\\t\\x7f'" in refused.output["msg"]
            raw = await asyncio.to_thread(
                subprocess.run,
                [PLUGIN],
                input=b'{"socket":"' + str(here.run_dir / "cni.sock").encode() + b'","name":"\xff"}',
                env={"CNI_COMMAND": "DEL"},
                capture_output=True,
                check=False,
            )
            assert json.loads(raw.stdout)["code"] == raw.returncode == 6

    asyncio.run(main())


def test_a_del_does_not_wait_for_an_add_that_waits() -> None:
    async def main() -> None:
        async with node() as here:
            pod = await here.pod("slow", {"app": "slow"}, known=False)
            async with asyncio.TaskGroup() as tasks:
                adding = tasks.create_task(here.cni("ADD", pod.name))
                await eventually(lambda: list((here.state_dir / "endpoints").glob("*.json")))
                start = time.monotonic()
                assert (await here.cni("DEL", pod.name)).code == 0
                refused = await adding
            assert time.monotonic() - start < 2, "an ADD waits 5 s for a Pod object"
            assert refused.code == 11
            assert "DEL came while ADD waited for its Pod object" in refused.output["msg"]
            await here.announce(pod)
            await here.plug(pod)

    asyncio.run(main())
