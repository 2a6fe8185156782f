"""The benchmarks: ``.venv/bin/python integration/bench [--rows B1,B2] [--rounds N] [--json FILE]``."""

import sys
from pathlib import Path

# Run as a folder: the modules are found from the repository's root, and by no other name.
sys.path[0] = str(Path(__file__).resolve().parents[2])


def main() -> int:
    """Run the rows, print the table."""
    from integration.bench.command import main as command

    return command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
