"""Draw the dashboard of a training: `python docs/draw_dashboard.py LOGDIR FILE.svg`."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ipucnn.runs.dashboard import drawn
from ipucnn.runs.watching import Watched, coloured

WIDTH, HEIGHT = 100, 27


def main() -> int:
    """Write the picture."""
    folder, target = sys.argv[1:]
    Path(target).write_text(picture_of(Path(folder)), encoding="utf-8")
    return 0


def picture_of(folder: Path) -> str:
    """Return the dashboard of the training in a log folder, as SVG."""
    view = replace(Watched(folder).view(), title=folder.name)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(coloured(drawn(view, WIDTH, HEIGHT)))
    picture = console.export_svg(title="ipucnn watch")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # from a server
    return picture.replace("Fira Code", "monospace")


if __name__ == "__main__":
    sys.exit(main())
