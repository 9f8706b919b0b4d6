"""Verifies that a dataset on disk is complete and unchanged."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.options.assignment import settled
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.core.registry.targets import import_target
from ipucnn.core.showing import Blocks, Shown
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.formats.recognition import is_url, marked, offering, read_by, recognised
from ipucnn.data.left_out import unpacking


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """The result of a verification.

    Attributes:
        path: the folder of the dataset.
        problems: one line each; empty when it is complete and unchanged.
        notes: notes on what cannot be checked, on files that are left out, and on how it is read.
    """

    path: str
    problems: List[str]
    notes: List[str]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types, for JSON."""
        return {"path": self.path, "ok": self.ok, "problems": self.problems, "notes": self.notes}

    def blocks(self) -> Blocks:
        """Return the problems and notes; see `Shown`."""
        return [[("path", self.path), ("problems", self.problems or "none found"),
                 ("notes", self.notes)]]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per problem."""
        return [{"path": self.path, "problem": problem} for problem in self.problems]


def verification(path: str, name: Optional[str] = None) -> Verification:
    """Verify a dataset on disk; see `verify`, `left_out` and `DatasetSpec.unverified`."""
    problems = verify(path, name)
    spec = _format(path, name)
    unchecked: List[str] = import_target(spec.unverified)(path) if spec.unverified else []
    return Verification(path, problems, [*unchecked, *left_out(path, name)])


def verify(path: str, name: Optional[str] = None) -> List[str]:
    """Return the problems of a dataset on disk, one line each.

    Args:
        path: its folder.
        name: its format; recognised by its content when None.

    Raises:
        DataError: there is no such folder, or its format is not recognised.
        UsageError: the format is unknown or cannot be verified, or it is a URL.
    """
    spec = _format(path, name)
    if not spec.verify:
        raise UsageError(f"dataset {spec.name!r} cannot be verified",
                         "datasets that can: " + offering("verify", registry()))
    problems: List[str] = import_target(spec.verify)(path)
    return problems


def left_out(path: str, name: Optional[str] = None) -> List[str]:
    """Return the notes of a dataset on disk: what is left out of it, and how it is read.

    Args:
        path: its folder.
        name: its format; recognised by its content when None.

    Raises:
        DataError: there is no such folder, or its format is not recognised.
    """
    spec = _format(path, name)
    if spec.markers and not spec.needs_data_dir and not marked(spec, path):
        return []  # opening it would download its files into the folder
    notes: List[str] = []
    opened = 0
    for split in ("train", "validation", None):
        if split is None and opened:
            break  # a dataset without splits is opened as a whole
        with suppress(DataError):  # a problem, which `verify` reports
            dataset = registry().make_typed(
                ImageDataset, spec, DatasetRequest(data_dir=path, split=split),
                options=settled(PluginOptions(), "dataset", spec, registry()))
            notes += dataset.notes
            opened += 1
    return list(dict.fromkeys(notes))


def _format(path: str, name: Optional[str]) -> DatasetSpec:
    if is_url(path):
        raise UsageError(f"{path!r} is not verified over the network",
                         "run it on the server, or on a copy; what is streamed is checked against "
                         "its MD5 in any case")
    if not os.path.isdir(path):
        if os.path.exists(path):
            raise DataError(f"{path!r} is no folder",
                            unpacking(path, "name the folder of the dataset"))
        raise DataError(f"folder {path!r} does not exist", "check its name")
    spec = registry().get_typed(DatasetSpec, name or recognised(path))
    return read_by(spec, path, registry())
