"""`python -m receptance` and the command `receptance`, which are the same."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, and exit."""
    try:
        # Here and not at the top: Ctrl-C while this loads should be answered like any other.
        from .cli import main as run
    except KeyboardInterrupt:
        print("receptance: stopped", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
