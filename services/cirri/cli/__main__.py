"""``cirri``."""

from cirri.cli.root import cli


def main() -> None:
    """Run the command line."""
    cli(prog_name="cirri")


if __name__ == "__main__":
    main()
