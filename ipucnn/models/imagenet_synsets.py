"""WordNet identifiers of ImageNet's 1000 classes (ILSVRC 2012)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Tuple


@lru_cache(maxsize=1)
def synsets() -> Tuple[str, ...]:
    """Return the identifiers in the order of the outputs of published networks: ascending.

    Source: the folder names of the training set of ILSVRC 2012.
    """
    return tuple(Path(__file__).with_name("imagenet_synsets.txt").read_text("ascii").split())
