"""Writes the file and the report of a result."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional, Union

from ipucnn.core.documents import write_json

Place = Optional[Union[str, "os.PathLike[str]"]]


def write_result(document: Dict[str, Any], result: Place, report: Place = None) -> None:
    """Write a result where files are named, the second one even if the first cannot be written.

    Args:
        document: the content of the file of the result.
        result: JSON file; None for none.
        report: HTML page; None for none.

    Raises:
        DataError: a file cannot be written.
    """
    try:
        if result:
            write_json(os.fspath(result), document)
    finally:
        if report:
            from ipucnn.reports.job import of_document

            of_document(document, report)
