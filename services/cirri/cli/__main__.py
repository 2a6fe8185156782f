"""``cirri``."""

import gc

from cirri.cli.root import cli


def main() -> None:
    """Run the command line."""
    gc.set_threshold(100_000, 50, 100)  # most commands are over before there is garbage
    cli(prog_name="cirri")


if __name__ == "__main__":
    main()
