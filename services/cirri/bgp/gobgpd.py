"""``python -m cirri.bgp.gobgpd``: become the node's BGP speaker, which the node's service manager keeps.

It is told everything over its socket, by ``cirri-bgp``; without it, it speaks to nobody and listens nowhere.
"""

from __future__ import annotations

import os
import shutil
import sys

from cirri.runtime.settings import Settings

SOCKET = "gobgpd.sock"
"""In the run directory; for root alone: GoBGP asks nobody who they are."""
PROGRAM = "gobgpd"


def main() -> None:
    """Entry point."""
    settings = Settings.read(os.environ, "gobgpd")
    program = shutil.which(PROGRAM)
    if program is None:
        sys.exit("cirri-gobgpd: gobgpd is not installed. Run make setup")
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    socket = settings.run_dir / SOCKET
    socket.unlink(missing_ok=True)  # of one that was killed
    os.umask(0o077)
    argv = [
        PROGRAM,
        "--api-hosts",
        f"unix://{socket}",
        "--pprof-disable",
        "--log-plain",
        "--log-level",
        "warn",
    ]
    os.execv(program, argv)  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
