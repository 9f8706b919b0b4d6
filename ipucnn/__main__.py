"""`ipucnn` and `python -m ipucnn`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return the exit code of the process."""
    try:
        from ipucnn.edge import invoke  # inside, so that Ctrl-C while importing is quiet too

        return invoke(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        return 143 if str(interrupt) == "SIGTERM" else 130


if __name__ == "__main__":
    sys.exit(main())
