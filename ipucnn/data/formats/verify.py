"""Verifies that a dataset on disk is complete and unchanged."""

from __future__ import annotations

import os
from typing import List, Optional

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.registry.loading import import_target
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
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
    if is_url(path):
        raise UsageError(f"{path!r} is not verified over the network",
                         "run it on the server, or on a copy; what is streamed is checked against "
                         "its MD5 in any case")
    if not os.path.isdir(path):
        raise DataError(f"folder {path!r} does not exist", "check its name")
    spec = registry().get_typed(DatasetSpec, name or recognised(path))
    spec = read_by(spec, path, registry())
    if not spec.verify:
        raise UsageError(f"dataset {spec.name!r} cannot be verified",
                         "datasets that can: " + offering("verify", registry()))
    problems: List[str] = import_target(spec.verify)(path)
    return problems
