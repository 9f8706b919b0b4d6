"""What MkDocs and its theme do not do: `mkdocs.yml` calls these functions."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_REMOTE = re.compile(r'<script src="?https?://[^">]*iframe-worker[^">]*"?></script>')


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace a link that leads out of `docs/` by its text and the file's path."""
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match: Any) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if "://" in match[2] or not target.startswith("../"):
            return str(match[0])
        return match[1] if target[3:] in match[1] else f"{match[1]} (`{target[3:]}`)"

    return _LINK.sub(replaced, markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """Replace the theme's script for search without a server, which is remote, by `site.js`."""
    site = Path(config.site_dir)
    for page in site.rglob("*.html"):
        script = "../" * len(page.parent.relative_to(site).parts) + "site.js"
        text = page.read_text(encoding="utf-8")
        page.write_text(_REMOTE.sub(f'<script src="{script}"></script>', text), encoding="utf-8")
