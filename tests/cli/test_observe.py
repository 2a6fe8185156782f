"""``cirri observe`` against a server of the observer API that is none of ours: what it asks and shows."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.json_format import MessageToDict, ParseDict

from cirri.cli.root import cli
from cirri.hubble.messages import methods

FLOW = {
    "time": "2026-04-05T21:03:13.283Z",
    "node_name": "node1",
    "verdict": "FORWARDED",
    "IP": {"source": "10.52.0.1", "destination": "10.52.1.1"},
    "l4": {"TCP": {"source_port": 4000, "destination_port": 80}},
    "event_type": {"type": 4},
    "is_reply": False,
    "Summary": "TCP Flags: SYN",
}
LINE = (
    "Apr  5 21:03:13.283: 10.52.0.1:4000 (unknown) -> 10.52.1.1:80 (unknown) to-endpoint FORWARDED "
    "(TCP Flags: SYN)"
)
AWAY = {"node_status": {"state_change": "NODE_UNAVAILABLE", "node_names": ["node2"]}, "node_name": "relay"}


class Server:
    """Answers each method with messages that were told before, and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix://{folder}/observer.sock"
        self.asked: list[Any] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.until = threading.Event()
        """Calls end when it is set."""
        self.until.set()
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        for service in ("observer.Observer", "peer.Peer"):
            handlers = {name: self._handler(name, *kinds) for name, kinds in methods(service).items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        health = grpc.unary_unary_rpc_method_handler(lambda *_: b"\x08\x01")
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),)
        )
        self._server.add_insecure_port(self.address)
        self._server.start()

    def _handler(self, name: str, request: Any, answer: Any, streamed: bool) -> Any:
        def told(asked: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.asked.append(asked)
            if self.refusal:
                context.abort(*self.refusal)
            yield from (ParseDict(each, answer()) for each in self.answers.get(name, [{}]))
            self.until.wait(30)

        make = grpc.unary_stream_rpc_method_handler if streamed else grpc.unary_unary_rpc_method_handler
        return make(
            told if streamed else lambda *given: next(told(*given)),
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("observer"))
    yield server
    server.close()


@pytest.fixture
def server(shared: Server) -> Server:
    shared.asked.clear()
    shared.answers = {"GetFlows": [{"flow": FLOW}, AWAY]}
    shared.refusal = None
    return shared


def run(server: Server, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--server", server.address])


@pytest.mark.parametrize("command", [("observe",), ("observe", "flows"), ("hubble", "observe")])
def test_flows(server: Server, command: tuple[str, ...]) -> None:
    result = run(server, *command, "--pod", "deathstar", "--not", "--verdict", "DROPPED", "--last", "5")
    assert result.exit_code == 0, result.output
    assert result.stdout == LINE + "\n"
    assert "1 nodes are unavailable: node2" in result.stderr
    assert [MessageToDict(asked, preserving_proto_field_name=True) for asked in server.asked] == [
        {
            "number": "5",
            "whitelist": [{"source_pod": ["deathstar"]}, {"destination_pod": ["deathstar"]}],
            "blacklist": [{"verdict": ["DROPPED"]}],
        }
    ]


def test_forms(server: Server) -> None:
    assert json.loads(run(server, "observe", "-o", "json").stdout) == {"flow": FLOW}
    table = run(server, "observe", "-o", "table", "--print-node-name", "-s")
    assert table.stdout.splitlines()[1].split()[3:5] == ["node1", "10.52.0.1:4000"]
    assert table.stderr == ""
    assert run(server, "observe", "--time-format", "rfc3339").stdout.startswith("2026-04-05T21:03:13Z: ")
    assert "\x1b[36m" in run(server, "observe", "--color", "always").stdout
    server.asked.clear()
    run(server, "observe", "-o", "jsonpb", "--field-mask", "time,verdict", "--field-mask", "source.identity")
    run(server, "observe", "--use-default-field-masks", "--first", "3")
    masks = [[*asked.field_mask.paths] for asked in server.asked]
    assert masks[0] == ["time", "verdict", "source.identity"]
    assert "source.pod_name" in masks[1]
    assert "uuid" not in masks[1]


def test_names_are_translated_unless_they_are_not_wanted(server: Server) -> None:
    server.answers["GetFlows"] = [{"flow": {**FLOW, "source": {"pod_name": "a", "namespace": "n"}}}]
    assert " n/a:4000 " in run(server, "observe", "--ip-translation").stdout
    for flag in ("--numeric", "--ip-translation=false"):
        assert " 10.52.0.1:4000 " in run(server, "observe", flag).stdout


def test_lists_and_states(server: Server) -> None:
    server.answers |= {
        "GetNodes": [{"nodes": [{"name": "node1", "state": "NODE_CONNECTED"}]}],
        "GetNamespaces": [{"namespaces": [{"namespace": "default"}]}],
        "ServerStatus": [{"num_flows": 5, "max_flows": 10}],
        "GetAgentEvents": [{"agent_event": {"type": "ENDPOINT_CREATED", "endpoint_update": {"id": 7}}}],
        "Notify": [{"name": "node1", "address": "a:4244", "type": "PEER_ADDED"}],
    }
    assert run(server, "list", "nodes").stdout.splitlines()[1].split()[:2] == ["node1", "Connected"]
    assert run(server, "list", "namespaces").stdout.split() == ["NAMESPACE", "default"]
    assert run(server, "hubble", "status").stdout == (
        f"Healthcheck (via {server.address}): Ok\nCurrent/Max Flows: 5/10 (50.00%)\nFlows/s: N/A\n"
    )
    assert run(server, "observe", "status", "-o", "json").stdout == ('{"num_flows":"5","max_flows":"10"}\n')
    assert run(server, "observe", "agent-events").stdout == (
        "Jan  1 00:00:00.000: ENDPOINT_CREATED (id: 7)\n"
    )
    assert run(server, "hubble", "watch", "peers").stdout == "PEER_ADDED   a:4244 node1\n"
    assert server.asked[-2].number == 20


REFUSALS = [
    (grpc.StatusCode.INVALID_ARGUMENT, "bad regular expression", "Error: bad regular expression"),
    (grpc.StatusCode.UNKNOWN, "odd", "Error: odd"),
    (grpc.StatusCode.UNIMPLEMENTED, "", "Error: UNIMPLEMENTED. Nodes offer what a relay does not: --node"),
    (grpc.StatusCode.UNAVAILABLE, "draining", "Error: no answer from unix:"),
]


@pytest.mark.parametrize(("code", "says", "expected"), REFUSALS, ids=str)
def test_refusals(server: Server, code: grpc.StatusCode, says: str, expected: str) -> None:
    server.refusal = (code, says)
    result = run(server, "observe")
    assert result.exit_code == 1
    assert result.stderr.startswith(expected)


WRONG = [
    (("observe", "--identity", "bad"), "invalid security identity"),
    (("observe", "-o", "table", "-f"), "not compatible with follow"),
    (("observe", "--field-mask", "time"), "not compatible with custom field mask"),
    (("observe", "--first", "1", "--last", "1"), "cannot set both"),
    (("observe", "--allowlist", "{"), "invalid --allowlist flag"),
    (("observe", "--last", "3", "agent-events"), "stand behind it"),
    (("observe", "--tls-client-cert-file", "x"), "belong together"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_usage(server: Server, arguments: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(cli, [*arguments])
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not server.asked


def test_nobody_there(tmp_path: Path) -> None:
    began = time.monotonic()
    result = CliRunner().invoke(cli, ["observe", "--server", f"unix://{tmp_path}/nobody.sock"])
    assert result.exit_code == 1
    assert f"no answer from unix://{tmp_path}/nobody.sock" in result.stderr
    assert "--server HOST:PORT" in result.stderr
    assert time.monotonic() - began < 3, "a refused connection is known at once"


def test_a_cluster_that_was_named_has_to_be_there() -> None:
    result = CliRunner().invoke(cli, ["--context", "cirri-test-none", "observe"])
    assert result.exit_code == 1
    assert 'no cluster "cirri-test-none"' in result.stderr


def test_help_costs_no_grpc() -> None:
    late = "{'grpc', 'google', 'numpy'} & {*sys.modules}"
    asked = f"import sys; from cirri.cli import observe, hubble; print({late})"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


COMPLETIONS = [
    ("observe --verdict D", "DROPPED"),
    ("observe --not --from-identity w", "world"),
    ("observe flows --type trace:to-h", "trace:to-host"),
    ("observe --not --ver", "--verdict"),
    ("list n", "nodes"),
    ("hubble s", "status"),
]


@pytest.mark.parametrize(("begun", "word"), COMPLETIONS)
def test_shells_complete(begun: str, word: str) -> None:
    words = {"COMP_WORDS": f"cirri {begun}", "COMP_CWORD": str(len(begun.split()))}
    result = CliRunner().invoke(cli, [], prog_name="cirri", env={**words, "_CIRRI_COMPLETE": "bash_complete"})
    assert f"plain,{word}" in result.output.split(), result.output


def test_somebody_at_a_terminal_is_told_what_is_waited_for(server: Server) -> None:
    """News of nodes are no flows: who follows still waits."""
    begun, done = pty.openpty()
    server.answers["GetFlows"] = [AWAY]
    server.until.clear()
    command = [sys.executable, "-m", "cirri.cli", "observe", "-f", "--server", server.address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=done)
    os.close(done)
    said = b""
    while b"Waiting for" not in said:
        said += os.read(begun, 1000)
    server.until.set()
    assert process.wait(10) == 0
    os.close(begun)
    assert f"Waiting for {server.address}".encode() in said
