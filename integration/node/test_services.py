"""Services that a node's clients talk to, with real packets."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from cirri.layout import LB_FLOWS, LB_SERVICES, RUNTIME, RuntimeFlag
from cirri.maps import open_pinned
from cirri.model import Resource
from cirri.testing.node import Node, Pod, node, run
from cirri.testing.objects import allow, service
from cirri.testing.sockets import Echo
from cirri.testing.wait import eventually

CLIENT = """
import json, os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
held = []
for line in sys.stdin:
    what, *rest = json.loads(line)
    try:
        if what == "hold":
            kind = socket.SOCK_STREAM if "stream" in rest else socket.SOCK_DGRAM
            one = socket.socket(socket.AF_INET6 if ":" in rest[0][0] else socket.AF_INET, kind)
            one.settimeout(5)
            one.connect(tuple(rest[0]))
            held.append(one)
            said = None
        elif what == "ask":
            held[rest[0]].send(b"ping")
            said = held[rest[0]].recv(4).decode()
        elif what == "wait":
            said = held[rest[0]].recv(4).decode()
        elif what == "stream":
            with socket.create_connection(tuple(rest[0]), 2) as one:
                one.sendall(b"ping")
                said = one.recv(4).decode()
        elif what == "datagram":
            family = socket.AF_INET6 if ":" in rest[0][0] else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as one:
                one.settimeout(2)
                one.sendto(b"ping", tuple(rest[0]))
                said, sender = one.recvfrom(4)
                said = said.decode() if sender[:2] == tuple(rest[0]) else f"from {sender}"
    except OSError as error:
        said = error.strerror or str(error)
    print(json.dumps(said), flush=True)
"""


class Client:
    """A process in a pod that does what it is told."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def say(self, *words: Any) -> Any:
        """What came of one thing."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def client(here: Node, pod: Pod) -> Iterator[Client]:
    words = ["nsenter", f"--net=/run/netns/{pod.netns}", sys.executable, "-I", "-S", "-c", CLIENT]
    pipe = subprocess.PIPE
    with subprocess.Popen([*words, str(here.cgroup)], stdin=pipe, stdout=pipe, text=True) as process:
        yield Client(process)
        assert process.stdin
        process.stdin.close()


async def served(here: Node, *resources: Resource) -> None:
    """Return when the node serves them."""
    revision = 0
    for each in resources:
        revision = await here.cluster.put(each)
    await eventually(lambda: here.ack.resources_revision >= revision, what=str(here.status))


def sticky(front: Resource) -> Resource:
    spec = {**front.manifest["spec"], "sessionAffinity": "ClientIP"}
    return replace(front, manifest={**front.manifest, "spec": spec})


def test_a_connected_udp_socket_is_told_that_its_backend_is_gone() -> None:
    """And only that one: who holds it connects again, and gets another backend."""

    async def main() -> None:
        async with node() as here:
            pods = [await here.add(name, app="dns") for name in ("one", "two")]
            asks = await here.add("asks", app="asks")
            kept, gone = ("10.96.0.10", 81), ("10.96.0.11", 81)
            await served(
                here,
                *service("10.96.0.10", [pods[0].ipv4], name="kept"),
                *service("10.96.0.11", [pods[1].ipv4], name="gone"),
            )
            with (
                Echo(pods[0].netns, 8081, socket.AF_INET6),
                Echo(pods[1].netns, 8081, socket.AF_INET6),
                client(here, asks) as one,
            ):
                for number, address in enumerate((kept, gone)):
                    assert one.say("hold", address) is None
                    assert one.say("ask", number) == "ping"
                async with asyncio.TaskGroup() as tasks:
                    waiting = tasks.create_task(asyncio.to_thread(one.say, "wait", 1))
                    await served(here, *service("10.96.0.11", [pods[0].ipv4], name="gone"))
                assert waiting.result() == "Software caused connection abort"
                assert one.say("ask", 0) == "ping"
                assert one.say("hold", gone) is None
                assert one.say("ask", 2) == "ping"

    asyncio.run(main())


def test_a_pod_keeps_its_backend_while_that_is_there() -> None:
    async def main() -> None:
        async with node() as here:
            pods = [await here.add(name, app="web") for name in ("one", "two", "three")]
            asks = await here.add("asks", app="asks")
            front, part = service("10.96.0.10", [pod.ipv4 for pod in pods])
            await served(here, sticky(front), part)
            with (
                Echo(pods[0].netns, 8080) as a,
                Echo(pods[1].netns, 8080) as b,
                Echo(pods[2].netns, 8080) as c,
                client(here, asks) as one,
            ):
                assert {one.say("stream", ("10.96.0.10", 80)) for _ in range(12)} == {"ping"}
                counts = [echo.connections for echo in (a, b, c)]
                assert sorted(counts) == [0, 0, 12]
                was = counts.index(12)
                left = [pod.ipv4 for number, pod in enumerate(pods) if number != was]
                await served(here, *service("10.96.0.10", left)[1:])
                assert {one.say("stream", ("10.96.0.10", 80)) for _ in range(6)} == {"ping"}
                counts = [echo.connections for echo in (a, b, c)]
                assert sorted(counts) == [0, 6, 12]
                assert counts[was] == 12

    asyncio.run(main())


def outside(external: str, front: Resource, part: Resource) -> list[Resource]:
    """The Service with node ports 30080 and 30081 and an external address; its pods run on this node."""
    ports = [{**port, "nodePort": 30000 + port["port"]} for port in front.manifest["spec"]["ports"]]
    spec = {**front.manifest["spec"], "type": "NodePort", "ports": ports, "externalIPs": [external]}
    endpoints = [{**each, "nodeName": "node1"} for each in part.manifest["endpoints"]]
    return [
        replace(front, manifest={**front.manifest, "spec": spec}),
        replace(part, manifest={**part.manifest, "endpoints": endpoints}),
    ]


def asks(address: str, port: int, kind: socket.SocketKind) -> str:
    """What a client outside hears from a server that echoes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        one.settimeout(2)
        try:
            one.connect((address, port))
            one.sendall(b"ping")
            return one.recv(4).decode()
        except OSError as error:
            return error.strerror or str(error)


def test_clients_outside_reach_pods_by_node_ports_and_external_addresses() -> None:
    """TCP and UDP, both families; under policy by their own address; refused when nobody is left."""

    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            number = here.number  # in the addresses: others may run the same at once
            fronts = {4: ("10.96.0.10", f"203.0.113.{number}", here.address, web.ipv4),
                      6: ("fd00:10:96::10", f"2001:db8:7::{number:x}", here.address6, web.ipv6)}  # fmt: skip
            doors = []
            for version, (cluster, external, own, pod) in fronts.items():
                await served(here, *outside(external, *service(cluster, [pod], name=f"web{version}")))
                run("ip", "route", "add", external, "via", own)
                doors += [(external, 80, 81), (own, 30080, 30081)]
            every = [
                (address, port, kind)
                for address, tcp, udp in doors
                for port, kind in ((tcp, socket.SOCK_STREAM), (udp, socket.SOCK_DGRAM))
            ]

            async def all_hear(what: str) -> None:
                heard = {one: await asyncio.to_thread(asks, *one) for one in every}
                assert heard == dict.fromkeys(every, what)

            with Echo(web.netns, 8080, socket.AF_INET6), Echo(web.netns, 8081, socket.AF_INET6):
                await all_hear("ping")
                closed = allow("web", to="web", peer="nobody", port=8080)
                await here.enforced(await here.cluster.put(closed))
                await all_hear("timed out")
                await here.enforced(await here.cluster.delete(closed))
                await all_hear("ping")
            await all_hear("Connection refused")
            for version, (cluster, external, _, _) in fronts.items():
                await served(here, *outside(external, *service(cluster, [], name=f"web{version}")))
            await all_hear("Connection refused")

    asyncio.run(main())


def with_host_ports(pod: Pod, *ports: tuple[int, str]) -> Resource:
    """The Pod as its kubelet reports it, container ports 8080 at host *ports*."""
    wanted = [{"hostPort": port, "containerPort": 8080, "protocol": protocol} for port, protocol in ports]
    spec = {"containers": [{"name": "c", "ports": wanted}]}
    status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in (pod.ipv4, pod.ipv6)]}
    return replace(pod.resource, manifest={**pod.resource.manifest, "spec": spec, "status": status})


def test_host_ports_are_a_pods_for_clients_outside_and_inside() -> None:
    """Of two pods that ask for one the first by name has it, which the node says; given up it is free."""

    async def main() -> None:
        async with node() as here:
            web, late = await here.add("web", app="web"), await here.add("zzz", app="web")
            asks_ = await here.add("asks", app="asks")
            doors = [
                (address, 9080, kind)
                for address in (here.address, here.address6)
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
            ]

            async def heard() -> set[str]:
                return {await asyncio.to_thread(asks, *one) for one in doors}

            with (
                Echo(web.netns, 8080, socket.AF_INET6) as first,
                Echo(late.netns, 8080, socket.AF_INET6) as second,
                client(here, asks_) as one,
            ):
                await here.cluster.put(with_host_ports(late, (9080, "TCP")))
                await here.cluster.put(with_host_ports(web, (9080, "TCP"), (9080, "UDP")))
                taken = ("Pod default/zzz is not served at", "port 9080: Pod default/web has that address")
                await eventually(lambda: all(part in str(here.status.errors) for part in taken))
                assert await heard() == {"ping"}
                assert (first.connections, first.datagrams, second.connections) == (2, 2, 0)
                assert one.say("stream", (here.address, 9080)) == "ping"
                assert first.connections == 3
                await here.cluster.put(with_host_ports(web))
                await eventually(lambda: not here.status.errors, what=str(here.status))
                assert one.say("stream", (here.address, 9080)) == "ping"
                assert await asyncio.to_thread(asks, here.address, 9080, socket.SOCK_STREAM) == "ping"
                assert (first.connections, second.connections) == (3, 2)
                assert await asyncio.to_thread(asks, here.address, 9080, socket.SOCK_DGRAM) != "ping"

    asyncio.run(main())


def test_the_algorithm_changes_live_and_moves_no_connection() -> None:
    """With Maglev who asks again from the same port meets the same backend, though its flow is forgotten."""

    async def main() -> None:
        async with node() as here:
            pods = [await here.add(name, app="dns") for name in ("one", "two")]
            external = f"203.0.113.{here.number}"
            front, part = outside(external, *service("10.96.0.10", [pod.ipv4 for pod in pods]))
            noted = {
                **front.manifest["metadata"],
                "annotations": {"service.cilium.io/lb-algorithm": "maglev"},
            }
            await served(here, replace(front, manifest={**front.manifest, "metadata": noted}), part)
            run("ip", "route", "add", external, "via", here.address)
            with (
                Echo(pods[0].netns, 8080),
                Echo(pods[1].netns, 8080),
                Echo(pods[0].netns, 8081) as first,
                Echo(pods[1].netns, 8081) as second,
                socket.create_connection((external, 80), 5) as held,
                open_pinned(here.bpffs, LB_FLOWS) as flows,
                open_pinned(here.bpffs, LB_SERVICES) as services,
            ):

                def chosen() -> list[int]:
                    """Whether each port's datagram came to the first; only what is held is remembered."""
                    flows.delete_many([key for key, _ in flows.items() if key.protocol == socket.IPPROTO_UDP])
                    found = []
                    for port in range(42000, 42016):
                        before = first.datagrams
                        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                            one.settimeout(5)
                            one.bind(("", port))
                            one.connect((external, 81))
                            one.send(b"ping")
                            assert one.recv(4) == b"ping"
                        found.append(first.datagrams - before)
                    held.sendall(b"ping")
                    assert held.recv(4) == b"ping"
                    return found

                by_table = await asyncio.to_thread(chosen)
                assert await asyncio.to_thread(chosen) == by_table
                assert 0 < first.datagrams < first.datagrams + second.datagrams == 32
                await served(here, front)
                assert await asyncio.to_thread(chosen) != by_table
                await here.cluster.configure(bpf_lb_algorithm="maglev")
                await eventually(lambda: any(head.table_size for _, head in services.items()))
                assert await asyncio.to_thread(chosen) == by_table

    asyncio.run(main())


def test_services_for_packets_of_pods_switched_while_they_talk() -> None:
    """To others, to the node's own processes and to itself; what was connected before goes on, both ways."""

    async def main() -> None:
        async with node() as here:
            web, asks_ = await here.add("web", app="web"), await here.add("asks", app="asks")
            backends = {"web": (web.ipv4, web.ipv6), "self": (asks_.ipv4, asks_.ipv6),
                        "host": (here.address, here.address6), "none": (None, None)}  # fmt: skip
            fronts: dict[str, list[str]] = {}
            for number, (name, addresses) in enumerate(backends.items(), 10):
                fronts[name] = [f"10.96.0.{number}", f"fd00:10:96::{number}"]
                for version, front, address in zip("46", fronts[name], addresses, strict=True):
                    ends = [address] if address else []
                    await served(here, *service(front, ends, name=f"{name}{version}"))
            runtime = open_pinned(here.bpffs, RUNTIME)

            async def switch(value: str) -> None:
                await here.cluster.configure(bpf_lb_sock_hostns_only=value)
                wanted = RuntimeFlag.NODE_SOCKETS if value == "true" else 0
                await eventually(lambda: runtime[0].flags & RuntimeFlag.NODE_SOCKETS == wanted)

            def all_hear(one: Client) -> None:
                for name, addresses in fronts.items():
                    said = "Connection refused" if name == "none" else "ping"
                    for address in addresses:
                        assert one.say("stream", (address, 80)) == said, (name, address)
                        if name != "none":  # a socket that is not connected is told nothing
                            assert one.say("datagram", (address, 81)) == said, (name, address)

            servers = [Echo(netns, port, socket.AF_INET6) for netns in (web.netns, asks_.netns, here.name)
                       for port in (8080, 8081)]  # fmt: skip
            with client(here, asks_) as one, open_pinned(here.bpffs, LB_FLOWS) as flows:
                held = 0
                for value in ("false", "true", "false"):
                    await switch(value)
                    before = len(flows.to_dict())
                    all_hear(one)
                    assert (len(flows.to_dict()) > before) is (value == "true")
                    for address in (*fronts["web"], fronts["host"][0]):
                        for kind, port in (("stream", 80), ("datagram", 81)):
                            assert one.say("hold", (address, port), kind) is None
                    held += 6
                    assert {one.say("ask", number) for number in range(held)} == {"ping"}
            for each in servers:
                each.close()

    asyncio.run(main())


def test_processes_of_the_node_serve_clients_outside() -> None:
    """By node ports and external addresses, TCP and UDP; what the node's stack refuses comes back, too."""

    async def main() -> None:
        async with node() as here:
            number = here.number
            fronts = {4: ("10.96.0.10", f"203.0.113.{number}", here.address),
                      6: ("fd00:10:96::10", f"2001:db8:7::{number:x}", here.address6)}  # fmt: skip
            every = []
            for version, (cluster, external, own) in fronts.items():
                await served(here, *outside(external, *service(cluster, [own], name=f"web{version}")))
                run("ip", "route", "add", external, "via", own)
                for address, offset in ((external, 0), (own, 30000)):
                    every += [
                        (address, 80 + offset, socket.SOCK_STREAM),
                        (address, 81 + offset, socket.SOCK_DGRAM),
                    ]

            async def all_hear(what: str) -> None:
                heard = {one: await asyncio.to_thread(asks, *one) for one in every}
                assert heard == dict.fromkeys(every, what)

            with Echo(here.name, 8080, socket.AF_INET6) as web, Echo(here.name, 8081, socket.AF_INET6) as dns:
                await all_hear("ping")
                assert (web.connections, dns.datagrams) == (4, 4)
            await all_hear("Connection refused")

    asyncio.run(main())
