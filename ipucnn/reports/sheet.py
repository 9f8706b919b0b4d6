"""The content of a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Tuple


@dataclass
class Shown:
    """One image: its name, the stored pixels and the prepared ones, or why it cannot be read."""

    name: str
    stored: Any = None
    prepared: List[Any] = field(default_factory=list)
    problem: str = ""


@dataclass
class Sheet:
    """A contact sheet.

    Attributes:
        title: the dataset and its folder.
        summary: names and values.
        counts: number of images by class.
        classes: the images that are shown, by class.
        prepared: description of the prepared images.
        notes: notes for the user.
    """

    title: str
    summary: List[Tuple[str, str]]
    counts: Dict[str, int]
    classes: Dict[str, List[Shown]]
    prepared: str
    notes: List[str]
