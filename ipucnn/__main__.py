"""`ipucnn` and `python -m ipucnn`."""

from __future__ import annotations

import os
import sys

INTERRUPTED = (130, 143)


def main() -> int:
    """Run the command line and return the exit code of the process."""
    try:
        from ipucnn.edge import invoke  # inside, so that Ctrl-C while importing is quiet too

        code = invoke(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        code = 143 if str(interrupt) == "SIGTERM" else 130
    if code in INTERRUPTED:
        # Leave at once: an interrupt that passed through `exec` of a text makes CPython end the
        # process by SIGINT however it was answered, and no thread may hold an impatient user up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
