"""Run many curls at once.

``curling.py JSON``, a list of lists of arguments; prints [exit code, output] of each.  What is never answered
takes as long as it may: they wait together.  Standard library only: it runs in pods.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

AT_ONCE = 32


def curl(arguments: list[str]) -> tuple[int, str]:
    """One of them."""
    done = subprocess.run(["curl", "-s", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


if __name__ == "__main__":
    with ThreadPoolExecutor(AT_ONCE) as pool:
        print(json.dumps(list(pool.map(curl, json.loads(sys.argv[1])))))
