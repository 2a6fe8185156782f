"""The root command: its help, and how little it loads."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import click
import pytest
from click.testing import CliRunner

from cirri.cli.context import RUN_DIR, BrokenContext, NoContext, Target, enter
from cirri.cli.root import ENTRIES, cli


def test_help_loads_next_to_nothing() -> None:
    """Start-up is what imports cost; the help must not need any of the heavy ones."""
    script = (
        "import sys\n"
        "from cirri.cli.root import cli\n"
        "try:\n    cli(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'nats', 'msgspec', 'yaml', 'asyncio', 'cirri.model', 'cirri.manifests'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert "cirri lab up --nodes 2" in out
    assert "CIRRI_CONTEXT" in out


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_command_is_there_and_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage: cli ")
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert (result.exit_code, result.output) == (0, f"cirri, version {version('cirri')}\n")


def test_a_context_that_is_not_there() -> None:
    with pytest.raises(NoContext) as caught:
        Target("cirri-test-none").context()
    assert str(caught.value).startswith('no cluster "cirri-test-none"; ')
    assert "Start one with `cirri lab up --name cirri-test-none`" in str(caught.value)


def test_a_context(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    said = {"nats_url": "nats://x", "password": "p", "bpffs": {"node1": "/b"}, "of a later version": 1}
    (tmp_path / "one/context.json").write_text(json.dumps(said))

    context = Target("one", tmp_path).context()

    assert (context.nats_url, context.user, context.bpffs) == ("nats://x", "cli", {"node1": "/b"})
    assert "password" not in repr(context)
    with pytest.raises(
        NoContext, match=r'no cluster "two"; running here: one\..* choose one with --context one'
    ):
        Target("two", tmp_path).context()


@pytest.mark.parametrize(
    ("text", "why"), [("{", "Expecting"), ("{}", "nats_url is missing"), ("[]", "nats_url is missing")]
)
def test_a_broken_context(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/context.json").write_text(text)
    with pytest.raises(BrokenContext, match=why):
        Target("one", tmp_path).context()


def test_a_network_that_is_gone() -> None:
    enter("")
    with pytest.raises(
        BrokenContext, match=r"/run/netns/cirri-test-gone: cannot enter the cluster's network: No such file"
    ):
        enter("cirri-test-gone")


def test_commands_run_in_the_network_of_their_cluster() -> None:
    """In a process of its own: the namespace is entered for good."""
    name = "cirri-test-enter"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        script = (
            "import os\nfrom cirri.cli.context import enter\n"
            f"enter('{name}')\n"
            f"print(os.stat('/proc/self/ns/net').st_ino == os.stat('/run/netns/{name}').st_ino)"
        )
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert out.stdout == "True\n"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_bus_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cirri.cli.bus.CONNECT_S", 0.3)
    name = f"cirri-test-{uuid4().hex[:12]}"
    folder = RUN_DIR / name
    folder.mkdir(parents=True)
    try:
        (folder / "context.json").write_text('{"nats_url": "nats://127.0.0.1:1"}')
        result = CliRunner().invoke(cli, ["--context", name, "get", "pods"])
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert "127.0.0.1:1" in result.stderr
        assert "cirri lab" not in result.stderr
        (folder / "plan.json").touch()
        said = {"nats_url": "nats://127.0.0.1:1", "run_dir": str(folder)}
        (folder / "context.json").write_text(json.dumps(said))
        result = CliRunner().invoke(cli, ["--context", name, "get", "pods"])
        assert f"`cirri lab status --name {name}` shows what runs" in result.stderr
        assert f"`cirri lab resume --name {name}` starts it again" in result.stderr
    finally:
        shutil.rmtree(folder)
