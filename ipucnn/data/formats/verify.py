"""Verifies that a dataset on disk is complete and unchanged."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import List, Optional

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.options.assignment import settled
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.registry.loading import import_target
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest
from ipucnn.data.formats.recognition import is_url, offering, read_by, recognised


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
    notes: List[str] = []
    opened = 0
    for split in ("train", "validation", None):
        if split is None and opened:
            break  # of the whole, one that has no splits is all there is
        with suppress(DataError):  # a problem, which `verify` reports
            dataset = registry().make(spec, DatasetRequest(data_dir=path, split=split),
                                      options=settled(PluginOptions(), "dataset", spec,
                                                      registry()))
            notes += dataset.notes
            opened += 1
    return list(dict.fromkeys(notes))


def _format(path: str, name: Optional[str]) -> DatasetSpec:
    if is_url(path):
        raise UsageError(f"{path!r} is not verified over the network",
                         "run it on the server, or on a copy; what is streamed is checked against "
                         "its MD5 in any case")
    if not os.path.isdir(path):
        raise DataError(f"folder {path!r} does not exist", "check its name")
    spec = registry().get_typed(DatasetSpec, name or recognised(path))
    return read_by(spec, path, registry())
