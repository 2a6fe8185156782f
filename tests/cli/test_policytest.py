"""``cirri policy test``: what it prints, and how it ends."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from cirri.cli.root import cli

ROOT = Path(__file__).parents[2]
SUITES = sorted((ROOT / "deploy/policy-tests").glob("*.yaml"))
DEMO = str(ROOT / "deploy/policy-tests/demo.yaml")


def cirri(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--context", "there-is-none", "policy", "test", *arguments])


def test_the_suites_that_come_along_hold() -> None:
    result = cirri(*map(str, SUITES))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith(" flows, all as expected")


def broken(folder: Path) -> str:
    """The demo's suite with an expectation that does not hold."""
    text = Path(DEMO).read_text().replace("../examples", str(ROOT / "deploy/examples"))
    (folder / "demo.yaml").write_text(text.replace("expect: default-deny", "expect: allow", 1))
    return str(folder / "demo.yaml")


def test_what_ends_otherwise_is_told_with_the_rule(tmp_path: Path) -> None:
    result = cirri(broken(tmp_path))
    assert result.exit_code == 1
    told = result.stdout.splitlines()
    at = next(number for number, line in enumerate(told) if "FAIL" in line)
    assert told[at] == "  FAIL  ships of the empire only: xwing is not answered (line 19)"
    assert told[at + 1 : at + 4] == [
        "        default/xwing -> service default/deathstar 80/TCP: expected allow, got default-deny",
        "          default/xwing: egress: not enforced",
        "          default/deathstar: ingress: no rule of CiliumNetworkPolicy default/rule1 allows it "
        "(default deny)",
    ]
    assert told[-1].endswith(" flows, 1 not as expected")


def test_for_machines(tmp_path: Path) -> None:
    result = cirri(broken(tmp_path), "-o", "json")
    assert result.exit_code == 1
    (failed,) = [one for one in json.loads(result.stdout) if not one["passed"]]
    assert failed.pop("reasons")[0] == "default/xwing: egress: not enforced"
    assert failed == {
        "file": str(tmp_path / "demo.yaml"), "suite": "ships of the empire only", "line": 19,
        "case": "xwing is not answered", "from": "default/xwing", "to": "service default/deathstar",
        "port": 80, "protocol": "TCP", "request": "",
        "expect": "allow", "got": "default-deny", "passed": False,
    }  # fmt: skip


def test_what_is_wrong_is_another_end(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cases:\n- {from: a, to: b, port: 80, expect: maybe}\n")
    result = cirri(str(tmp_path / "a.yaml"), DEMO)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f'Error: {tmp_path}/a.yaml: document 1, line 2: cases[0].expect: "maybe"' in result.stderr
    assert cirri(str(tmp_path / "none.yaml")).exit_code == 2
    (tmp_path / "a.yaml").write_text(
        "name: modes\nconfig: {enable-policy: x}\ncases:\n- {from: a, to: b, port: 80, expect: deny}\n"
    )
    result = cirri(str(tmp_path / "a.yaml"))
    assert result.exit_code == 2
    assert f"Error: {tmp_path}/a.yaml: modes: cirri-config: enable-policy: 'x' is not one of" in result.stderr
    assert cirri().exit_code == 2
