"""Writes installed distributions, for tests of plugins and of their loading."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Mapping

from ipucnn.core.registry.discovery import GROUP


def write_distribution(folder: Path, name: str, modules: Mapping[str, str],
                       entry_points: Mapping[str, str], version: str = "1.0") -> Path:
    """Write an installed distribution as pip does: modules and a ``.dist-info`` folder.

    Args:
        folder: the folder to put on `sys.path` or `PYTHONPATH`; created if missing.
        name: the distribution's name.
        modules: source text by file name relative to `folder` (``"mine/plugin.py"``).
        entry_points: name and value of each entry point of the group ``ipucnn``.
        version: the distribution's version.

    Returns:
        The ``.dist-info`` folder.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    files = dict(modules)
    for file_name, source in files.items():
        path = folder / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
    lines = [f"{entry} = {value}" for entry, value in entry_points.items()]
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "entry_points.txt": "\n".join([f"[{GROUP}]", *lines, ""]),
        "INSTALLER": "ipucnn.testing\n",
    }
    for file_name, text in metadata.items():
        (info / file_name).write_text(text, encoding="utf-8")
    recorded = [*files, *(f"{info.name}/{file_name}" for file_name in (*metadata, "RECORD"))]
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in recorded), encoding="utf-8")
    return info
