"""Clusters to look at: one of nothing but the pinned maps of two nodes, one of nothing but a bus."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from cirri.cli.context import RUN_DIR
from cirri.cli.root import cli
from cirri.kv import Bus
from cirri.maps import Objects
from cirri.model import Bucket
from cirri.testing.kubernetes import KubernetesService
from cirri.testing.natsserver import NatsServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("objects")
    subprocess.run(
        [
            *("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", f"-I{ROOT}/bpf", f"-I{ROOT}/bpf/lib"),
            *("-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu"),
            *("-Wno-unused-function", "-c", f"{ROOT}/tests/maps/shipped.c", "-o", f"{directory}/shipped.o"),
        ],
        check=True,
        timeout=60,
    )
    return directory


class Cluster:
    """Two nodes' maps, and the command line that looks at them."""

    def __init__(self, objects: Path) -> None:
        self.context = f"cirri-test-{uuid4().hex[:12]}"
        self.run_dir = RUN_DIR / self.context
        self.pins = Path("/sys/fs/bpf") / self.context
        self.bpffs = {name: self.pins / name for name in ("node1", "node2")}
        self.programs = {
            name: Objects.load(objects, path, names=["shipped"]) for name, path in self.bpffs.items()
        }
        said = {
            "nats_url": "nats://127.0.0.1:1",
            "bpffs": {name: str(path) for name, path in self.bpffs.items()},
            "run_dir": str(self.run_dir),
        }
        for name in self.bpffs:
            (self.run_dir / name).mkdir(parents=True)
        (self.run_dir / "context.json").write_text(json.dumps(said))

    def name(self, node: str, file: str, content: object) -> None:
        (self.run_dir / node / file).write_text(json.dumps(content))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--context", self.context, *arguments])

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "-o", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cluster(objects: Path) -> Iterator[Cluster]:
    made = Cluster(objects)
    yield made
    for programs in made.programs.values():
        programs.close()
    for path in (made.pins, made.run_dir):
        shutil.rmtree(path, ignore_errors=True)


class Cli:
    """``cirri`` in a context of its own."""

    def __init__(self, service: KubernetesService) -> None:
        self.service = service
        self.name = f"cirri-test-{uuid4().hex[:12]}"
        self.folder = RUN_DIR / self.name
        self.folder.mkdir(parents=True)
        said = {"nats_url": service.server.url, "netns": "", "user": "", "run_dir": str(self.folder)}
        (self.folder / "context.json").write_text(json.dumps(said))

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--context", self.name, *arguments], input=stdin)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def put(self, bucket: Bucket, *values: object) -> None:  # type: ignore[type-arg]
        """Write as the bucket's owner would."""

        async def work(bus: Bus) -> None:
            await bus.ensure(bucket)
            for value in values:
                await bus.put(bucket, value)

        self.service.on_bus(work)

    def own(self, bucket: Bucket, *values: object) -> None:  # type: ignore[type-arg]
        """Make *values* the whole bucket, as its owner would."""

        async def work(bus: Bus) -> None:
            publisher = bus.publisher(bucket)
            await publisher.start()
            await publisher.replace(values)

        self.service.on_bus(work)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """``cirri`` with the real ``kubernetes`` service on a real bus; the test plays everybody else."""
    with NatsServer() as server:
        service = KubernetesService(server, tmp_path_factory.mktemp("cirri-test-cli"))
        service.start()
        made = Cli(service)
        try:
            service.bucket()  # there once the service is
            yield made
        finally:
            service.kill()
            shutil.rmtree(made.folder)
