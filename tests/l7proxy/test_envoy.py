"""How Envoy is run."""

import os
import time
from pathlib import Path

from cirri.l7proxy.envoy import began, command, spawn


def test_what_it_does_not_know_it_refuses() -> None:
    assert "--reject-unknown-dynamic-fields" in command(Path("/e"), Path("/run"), 0, "", 2)


def test_a_further_one_takes_over() -> None:
    first, second = (command(Path("/e"), Path("/run"), n, base, 2) for n, base in ((0, ""), (1, "77")))
    assert first[first.index("--restart-epoch") + 1] == "0"
    assert "--use-dynamic-base-id" in first
    assert second[second.index("--restart-epoch") + 1] == "1"
    assert second[second.index("--base-id") + 1] == "77"


def test_spawned_is_nobodys_child() -> None:
    pid = spawn(["/bin/sleep", "0.05"])
    assert began(pid) > 0
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert parent != str(os.getpid())
    while began(pid):
        time.sleep(0.01)
