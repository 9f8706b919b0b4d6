"""What MkDocs cannot do alone: links to files of the repository that are no pages of the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace a link that leads out of `docs/` by its text and the file's path."""
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if "://" in match[2] or not target.startswith("../"):
            return match[0]
        return match[1] if target[3:] in match[1] else f"{match[1]} (`{target[3:]}`)"

    return _LINK.sub(replaced, markdown)
