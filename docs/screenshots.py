"""Take the screenshots of a report: `python docs/screenshots.py RUN`, with Chromium."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from ipucnn.core.errors import IpucnnError
from ipucnn.reports.job import report

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"

SHOTS = (("report.png", 1280, 1500, False), ("report-phone.png", 390, 1000, True))
"""Name, width and height in pixels, and whether it is dark."""


def main() -> int:
    """Write the pictures of the report of the training in a folder."""
    sys.path.insert(0, str(ROOT / "tests" / "reports"))
    from browser import Browser, program

    if len(sys.argv) != 2 or program() is None:
        print("usage: python docs/screenshots.py RUN (needs Chromium)", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            page = report([sys.argv[1]], str(Path(folder) / "report.html"))
        except IpucnnError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        browser = Browser(Path(folder))
        for name, width, height, dark in SHOTS:
            browser.open(page, width, dark, height)
            picture = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
            picture.quantize(256, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
