"""Names of the files in a folder of checkpoints."""

from __future__ import annotations

import re

BEST = "best.json"
"""The file in a checkpoint folder that records the best validation."""

NAME = re.compile(r"(?P<run>.+)_(?P<epoch>\d+)(?:\.step(?P<step>\d+))?"
                  r"(?P<averaged>_averaged)?\.pt")
