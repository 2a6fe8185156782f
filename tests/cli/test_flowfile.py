"""``observe --input-file``: filters over a file find what they find over a server's flows."""

from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from cirri.cli.flowlines import as_json
from cirri.cli.root import cli
from cirri.hubble.flows import Teller
from cirri.testing.traffic import Traffic, outside, pod

WEB, DB = pod("default/web", "10.52.0.1", workload="web"), pod("default/db", "10.52.1.2")
SITE = outside("203.0.113.1", "api.github.com")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = []
    for node, instance in (("node1", 5), ("node2", 6)):
        seen = Traffic(node=node, instance=instance)
        seen.trace(WEB, DB, 5432)
        seen.drop(WEB, SITE, 443, 2)
        seen.http(WEB, DB, "GET", "http://db/things")
        teller = Teller(seen.table())
        lines += [as_json(teller.response(index)) for index in range(5)]
    lines += ["no json", '{"flow":{"some_new_field":1,"time":"2030-01-01T00:00:00Z"}}']
    path = tmp_path_factory.mktemp("flows") / "flows.json"
    path.write_text("\n".join(lines))
    return path


def run(path: Path | str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["observe", "--input-file", str(path), *arguments])


class Case(NamedTuple):
    arguments: str
    lines: int


CASES = [
    Case("", 11),
    Case("--first 3", 3),
    Case("--last 2", 2),
    Case("--verdict DROPPED", 4),
    Case("-t drop", 2),
    Case("--not -t l7 --not -t drop", 4),
    Case("--node-name node2", 5),
    Case("--to-fqdn *.github.com", 4),
    Case("--from-pod web --http-method get", 2),
    Case("--pod db --http-path ^/things$", 4),
    Case("--from-workload Deployment/web --to-port 5432", 2),
    Case("--uuid 00000000-0000-0006-0000-000000000001", 1),
    Case("--since 2029-01-01", 1),
    Case("--until 2029-01-01 --tcp-flags syn", 6),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.arguments or "all")
def test_filters(path: Path, case: Case) -> None:
    result = run(path, *case.arguments.split())
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == case.lines, result.stdout
    if not case.arguments:
        assert "this line is no flow" in result.stderr


def test_stdin(path: Path) -> None:
    result = CliRunner().invoke(cli, ["observe", "--input-file", "-", "-t", "l7"], input=path.read_text())
    assert len(result.stdout.splitlines()) == 4


def test_faults(path: Path, tmp_path: Path) -> None:
    for result, says in (
        (run(tmp_path / "none"), "No such file"),
        (run(path, "--http-path", "("), "no regular expression"),
    ):
        assert result.exit_code == 1
        assert says in result.stderr
