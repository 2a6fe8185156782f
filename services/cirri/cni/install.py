"""``cirri-cni-install``: put the plugin and its configuration where the node's container runtime looks.

It runs beside the node's ``datapath`` for as long as that does.  The plugin is copied at once; its
configuration, by which a kubelet takes the node for ready, when ``datapath`` says that it can take pods, and
again whenever it is gone.  It stays when this ends: pods can be started while ``datapath`` is being replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

BUILT = Path(__file__).parent / "build" / "cirri-cni"
PLUGIN, NETWORK = "cirri-cni", "cirri"
CONFIG = "05-cirri.conflist"
VERSION = "1.0.0"
"""Of the CNI specification: the newest that every runtime in use can read."""
ASIDE = ".cirri_bak"
KINDS = (".conf", ".conflist", ".json")
"""Files that runtimes read."""
LOOK_S = 2.0


def conflist(socket: Path) -> dict[str, Any]:
    """The network configuration list of a node, as it stands in ``/etc/cni/net.d``."""
    return {
        "cniVersion": VERSION,
        "name": NETWORK,
        "plugins": [{"type": PLUGIN, "socket": str(socket)}],
    }


def put(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Have *content* in *path*, whole at any moment; whether it had to be written."""
    if path.exists() and path.read_bytes() == content:
        return False
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.chmod(mode)
    draft.rename(path)
    return True


def set_aside(folder: Path) -> list[str]:
    """Make runtimes overlook other networks' configurations in *folder*; their names."""
    others = [p for p in sorted(folder.iterdir()) if p.suffix in KINDS and p.name != CONFIG]
    for path in others:
        path.rename(path.with_name(path.name + ASIDE))
    return [path.name for path in others]


def put_back(folder: Path) -> list[str]:
    """What :func:`set_aside` did, undone; the names."""
    others = sorted(folder.glob(f"*{ASIDE}"))
    for path in others:
        path.rename(path.with_name(path.name.removesuffix(ASIDE)))
    return [path.name.removesuffix(ASIDE) for path in others]


def answers(plugin: Path, socket: Path) -> str:
    """Whether the node can take pods: "", or why it cannot."""
    config = {"cniVersion": "1.1.0", "name": NETWORK, "type": PLUGIN, "socket": str(socket)}
    done = subprocess.run(
        [plugin],
        input=json.dumps(config),
        env={"CNI_COMMAND": "STATUS"},
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout.strip() or f"exit code {done.returncode}"


def install(bin_dir: Path, conf_dir: Path, socket: Path, *, exclusive: bool) -> list[str]:
    """One look at everything; sentences about what was done or is awaited."""
    said = []
    plugin = bin_dir / PLUGIN
    if put(plugin, BUILT.read_bytes(), 0o755):
        said.append(f"wrote {plugin}")
    if not (conf_dir / CONFIG).exists() and (why := answers(plugin, socket)):
        return [*said, f"waiting for datapath: {why}"]
    if put(conf_dir / CONFIG, (json.dumps(conflist(socket), indent=2) + "\n").encode()):
        said.append(f"wrote {conf_dir / CONFIG}")
    return said + [f"put {name} aside" for name in (set_aside(conf_dir) if exclusive else ())]


def remove(bin_dir: Path, conf_dir: Path) -> list[str]:
    """Leave the node as it was before; sentences about what was done."""
    ours = [p for p in (conf_dir / CONFIG, bin_dir / PLUGIN) if p.exists()]
    for path in ours:
        path.unlink()
    return [f"removed {path}" for path in ours] + [f"put {name} back" for name in put_back(conf_dir)]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="cirri-cni-install", description=__doc__)
    parser.add_argument("--bin-dir", type=Path, default=Path("/opt/cni/bin"))
    parser.add_argument("--conf-dir", type=Path, default=Path("/etc/cni/net.d"))
    parser.add_argument("--socket", type=Path, default=Path("/run/cirri/cni.sock"))
    parser.add_argument("--exclusive", action="store_true", help="put other configurations aside")
    parser.add_argument("--remove", action="store_true", help="take everything away again, and end")
    given = parser.parse_args()
    if given.remove:
        _say(remove(given.bin_dir, given.conf_dir))
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    before: list[str] = []
    while not stop.is_set():
        said = install(given.bin_dir, given.conf_dir, given.socket, exclusive=given.exclusive)
        if said != before:
            _say(said)
        before = said
        stop.wait(LOOK_S)


def _say(sentences: list[str]) -> None:
    for sentence in sentences:
        os.write(1, f"cirri-cni-install: {sentence}\n".encode())


if __name__ == "__main__":
    main()
