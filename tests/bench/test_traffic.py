"""The traffic tool and Cirri's own path, for a moment, in real namespaces."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
from integration.bench import cirri_paths, machine, paths, pods
from integration.bench.machine import BenchError, run
from integration.bench.rounds import Clients, Mode

MARK = f"cirri-test-bench{os.getpid()}-"


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that no run of the benchmarks takes for its own."""
    for module in (machine, pods):
        monkeypatch.setattr(module, "PREFIX", MARK)


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[paths.Path, Clients]]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(machine, "PREFIX", MARK)
        path = stack.enter_context(paths.raw("raw", "raw"))
        yield path, Clients(stack, [path], (4, 6))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mode", ["rr", "crr"])
def test_transactions(raw: tuple[paths.Path, Clients], mode: Mode, family: int) -> None:
    path, clients = raw
    found = clients.slice(path, family, mode, 0.05)
    assert found["count"] > 0
    assert found["seconds"] >= 0.05
    assert sum(count for _, count in found["histogram_ns"]) == found["count"] == sum(found["per_second"])


@pytest.mark.parametrize("family", [4, 6])
def test_stream_counts_what_arrived(raw: tuple[paths.Path, Clients], family: int) -> None:
    path, clients = raw
    assert clients.slice(path, family, "stream", 0.05)["count"] > 0


def test_a_client_without_a_server_says_so() -> None:
    with ExitStack() as stack:
        path = stack.enter_context(paths.raw("lonely", "lonely"))
        tool = machine.build("rr")
        command = (tool, "client", "--netns", path.client, "--to", path.addresses[4])
        with pytest.raises(BenchError, match=r"connect to 10\.9\.0\.3 port 5000: Connection refused"):
            run(*command, stdin="rr 0.1 0\n")


@pytest.mark.parametrize("build", [cirri_paths.local_pods, cirri_paths.remote_pods], ids=["local", "remote"])
def test_cirris_paths_enforce_policy_and_count(
    build: Callable[[str, str], AbstractContextManager[paths.Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cirri_paths, "USUAL", cirri_paths.Width(20))
    monkeypatch.setattr(cirri_paths, "REMOTE_PODS", 10)
    with ExitStack() as stack:
        path = stack.enter_context(build("cirri", "cirri"))
        clients = Clients(stack, [path], (4, 6))
        assert path.counters
        before = path.counters()
        sent = sum(clients.slice(path, family, "crr", 0.05)["count"] for family in (4, 6))
        after = path.counters()
        assert after["forwarded"] - before["forwarded"] >= 8 * sent
        assert after["events"] - before["events"] >= 2 * sent
        assert after["ct_entries"] > 0
        assert after["events_lost"] == 0
    assert not [name for name in os.listdir("/run/netns") if name.startswith(f"{MARK}cirri")]
    assert not [name for name in os.listdir("/sys/fs/bpf") if name.startswith(f"{MARK}cirri")]
