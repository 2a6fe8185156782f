"""An archive that may be given away: what is secret is in no page."""

import json
import zipfile
from pathlib import Path

from cirri.cli.sysdump import HIDDEN, clean, run, without_secrets, write

KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"


def test_secrets_keep_their_names_alone() -> None:
    secret = {
        "kind": "Secret",
        "name": "tls",
        "manifest": {
            "metadata": {
                "name": "tls",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "c2Vj"},
            },
            "data": {"tls.key": "c2Vj"},
            "stringData": {"token": "secret"},
        },
    }
    other = {"kind": "ConfigMap", "manifest": {"data": {"enable-policy": "always"}}}
    found = without_secrets({"a": {"revision": 1, "value": secret}, "b": [other]})
    manifest = found["a"]["value"]["manifest"]
    assert manifest["data"] == {"tls.key": HIDDEN}
    assert manifest["stringData"] == {"token": HIDDEN}
    assert "c2Vj" not in json.dumps(found)
    assert found["b"] == [other]


def test_passwords_and_keys_are_taken_out() -> None:
    assert (
        clean(f"user cli password hunter2\n{KEY}\nend", ["hunter2"])
        == f"user cli password {HIDDEN}\n{HIDDEN}\nend"
    )


def test_a_page_that_cannot_be_had_costs_nothing_else(tmp_path: Path) -> None:
    pages = [
        run("one.txt", ("echo", "hunter2")),
        run("two.txt", ("no-such-program",)),
        run("three.txt", ("false",)),
    ]
    write(tmp_path / "out.zip", pages, ["hunter2"])
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("one.txt").decode() == f"{HIDDEN}\n"
        index = json.loads(archive.read("index.json"))
    assert [bool(entry["fault"]) for entry in index] == [False, True, True]
    assert (tmp_path / "out.zip").stat().st_mode & 0o77 == 0
