"""`echogen` and `python -m echogen`: Ctrl-C ends them quietly while the command line loads, too."""

import sys

from echogen.errors import EXIT_SIGINT


def main() -> None:
    """The `echogen` command."""
    try:
        from echogen.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(EXIT_SIGINT)


if __name__ == "__main__":
    main()
