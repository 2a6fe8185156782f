"""Watch ``/readyz`` of services: one line of JSON for each change, with the time it was seen.

``readiness.py NAME=FILE ...``: each FILE holds ``host:port`` and changes when its service starts
again.  Runs in the services' network namespace, with the standard library only.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path

EVERY_S = 0.02
TIMEOUT_S = 1.0


def look(file: Path) -> bool:
    """Does the service whose address *file* holds say that it is ready?"""
    try:
        connection = http.client.HTTPConnection(file.read_text().strip(), timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return False


def watch(name: str, file: Path) -> None:
    """Print every change of readiness, for ever."""
    known: bool | None = None
    while True:
        now, ready = time.monotonic(), look(file)
        if ready != known:
            known = ready
            # In one piece: several threads print.
            print(json.dumps({"at": now, "name": name, "ready": ready}) + "\n", end="", flush=True)
        time.sleep(EVERY_S)


if __name__ == "__main__":
    for pair in sys.argv[1:]:
        what, _, where = pair.partition("=")
        threading.Thread(target=watch, args=(what, Path(where)), daemon=True).start()
    sys.stdin.read()
