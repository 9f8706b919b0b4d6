"""Listings of plugins: by family, as a table or page, and suppressed warnings."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Dict, Iterator, List, Sequence, Tuple

from ipucnn.core.names import cells, printable
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.showing import plain_table
from ipucnn.terminal.layout import wrapped

if TYPE_CHECKING:
    from ipucnn.core.registry.registry import Row

MANY = 16
"""A kind with more plugins than this is listed by family, without summaries."""

READABLE = 120
"""Maximum length of a line on wide terminals."""


@contextmanager
def without_loader_warnings() -> Iterator[None]:
    """Suppress plugin-load warnings while a listing shows the same states in its rows."""
    import logging

    loader = logging.getLogger("ipucnn.plugins")

    def no_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    loader.addFilter(no_warning)
    try:
        yield
    finally:
        loader.removeFilter(no_warning)


def by_family(rows: Sequence[Row], width: int) -> str:
    """Return plugins in lines of at most `width` columns, a block per kind.

    A kind with many plugins, such as models, has a line per family: the plugins of one entry point.
    Other kinds have a line per plugin with its summary. Names are not abbreviated; unusable plugins
    are shown with their state, and third-party plugins with their distribution.
    """
    kinds: Dict[str, List[Row]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    blocks = []
    for kind, found in kinds.items():
        lines = _families(found) if len(found) > MANY else [
            (_shown(row), printable(row.spec.summary) if row.spec else "") for row in found]
        blocks.append("\n".join([KINDS[kind].plural if kind else "plugins",
                                 *_lines(lines, min(width, READABLE))]))
    return "\n\n".join(blocks)


def row_table(rows: Sequence[Row]) -> str:
    """Return a line per plugin with its aliases, provider and state."""
    return plain_table(
        ("kind", "name", "aliases", "summary", "provider", "state"),
        [(row.kind or "plugin", row.name, ", ".join(row.spec.aliases) if row.spec else "",
          row.spec.summary if row.spec else "", row.provider.label, row.state.value)
         for row in rows])


def problem_of(row: Row) -> str:
    """Return why a plugin is not usable, and what to do about it, in one line."""
    return (f"{row.kind or 'plugin'} '{row.name}' of {row.provider.label} "
            f"({row.provider.entry_point}) is {row.state.value}: {row.cause}"
            + (f"; {row.remedy}" if row.remedy else ""))


def as_markdown(rows: Sequence[Row]) -> str:
    """Return an index page of plugins, a section per distribution with its metadata."""
    from importlib import metadata

    distributions: Dict[str, List[Row]] = {}
    for row in rows:
        distributions.setdefault(row.provider.label, []).append(row)
    lines = ["# Plugins"]
    for label, found in distributions.items():
        lines += ["", f"## {_plain(label)}"]
        with suppress(metadata.PackageNotFoundError):  # a file that was named by '--plugin'
            stated = metadata.metadata(found[0].provider.distribution)
            summary = stated.get_all("Summary") or [""]
            urls = [*(url.partition(", ")[2] for url in stated.get_all("Project-URL") or ()),
                    *(stated.get_all("Home-page") or ())]
            lines += [f"\n{_plain(text)}" for text in (*summary[:1], *urls[:1]) if text]
        lines += ["", "| kind | name | other names | summary | state |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(map(_plain, (
            row.kind or "plugin", row.name, ", ".join(row.spec.aliases) if row.spec else "",
            row.spec.summary if row.spec else row.cause, row.state.value))) + " |" for row in found]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a text as one cell of a table, without Markdown's markup."""
    return re.sub(r"([\\|<>`\[\]*])", r"\\\1", printable(text))


def _families(rows: Sequence[Row]) -> List[Tuple[str, str]]:
    families: Dict[str, List[Row]] = {}
    for row in rows:
        place = row.provider.entry_point.rpartition(".")[2] or row.provider.distribution
        family = printable(place) if row.provider.builtin else printable(
            f"{place} ({row.provider.label})")
        families.setdefault(family, []).append(row)
    return [(family, ", ".join(_shown(row, whose=False) for row in members))
            for family, members in families.items()]


def _shown(row: Row, whose: bool = True) -> str:
    """Return the name of a plugin, with its state or distribution in brackets."""
    special = [row.provider.label] if whose and not row.provider.builtin else []
    if row.state.value != "ok":
        special.append(row.state.value)
    return printable(row.name) + (f" ({', '.join(special)})" if special else "")


def _lines(pairs: Sequence[Tuple[str, str]], width: int) -> Iterator[str]:
    """Yield two columns, with the second one wrapped, or below the first if that is long."""
    longest = max(cells(first) for first, _ in pairs)
    start = 4 + (longest if longest <= width // 3 else max(
        [cells(first) for first, _ in pairs if cells(first) <= width // 3], default=4))
    for first, second in pairs:
        lines = wrapped(second, width - start, "").split("\n")
        if cells(first) > start - 4:
            yield "  " + first
        else:
            yield f"  {first}{' ' * (start - 2 - cells(first))}{lines.pop(0)}".rstrip()
        yield from (" " * start + line for line in lines if line)
