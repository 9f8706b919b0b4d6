"""Shows results of the Python interface: as text, as HTML in notebooks, and as data frames."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    Sequence,
    SupportsIndex,
    Tuple,
    TypeVar,
    Union,
    cast,
    overload,
)

from ipucnn.core.errors import UnavailableError
from ipucnn.core.names import cells, printable

if TYPE_CHECKING:
    from pandas import DataFrame

ItemT = TypeVar("ItemT")
ListT = TypeVar("ListT", bound="ShownList[Any]")

Facts = List[Tuple[str, Any]]
"""Names and values, shown one below the other."""


@dataclass(frozen=True)
class Table:
    """Rows that are shown in columns, below an optional `title`."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""


Blocks = Sequence[Union[Facts, Table]]


class Shown(ABC):
    """Base of the results that functions of `ipucnn` return.

    It prints as a short table, and shows as one in a notebook.
    """

    @abstractmethod
    def blocks(self) -> Blocks:
        """Return the sections that are shown, from top to bottom."""

    @abstractmethod
    def records(self) -> List[Dict[str, Any]]:
        """Return the rows of `to_dataframe` as plain types, by column."""

    def to_dataframe(self) -> DataFrame:
        """Return the rows of the result as a pandas data frame.

        Raises:
            UnavailableError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UnavailableError("a data frame needs pandas",
                                   "pip install 'ipucnn[pandas]'") from error
        return pandas.DataFrame(self.records())

    def __repr__(self) -> str:
        return "\n\n".join(_text(block) for block in self.blocks() if _filled(block))

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """Return the result as HTML; notebooks call it."""
        return "\n".join(_html(block) for block in self.blocks() if _filled(block))


class ShownList(List[ItemT], Shown):
    """A result that is a list; a slice is one of the same class, without further attributes."""

    __repr__ = Shown.__repr__

    @overload
    def __getitem__(self, index: SupportsIndex) -> ItemT: ...

    @overload
    def __getitem__(self: ListT, index: slice) -> ListT: ...

    def __getitem__(self, index: Any) -> Any:
        found, own = super().__getitem__(index), cast(Any, type(self))
        return own(found) if isinstance(index, slice) else found


def kept(facts: Iterable[Tuple[str, Any]]) -> Facts:
    """Return facts without those whose value is empty."""
    return [(name, value) for name, value in facts if value not in (None, "", (), [], {})]


def plain(value: Any) -> str:
    """Return a value of a fact as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(item)}" for name, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def plain_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in columns as wide as their cells; control characters are escaped."""
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cells, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell + " " * (width - cells(cell))
                               for cell, width in zip(line, widths)).rstrip() for line in lines)


def _filled(block: Union[Facts, Table]) -> bool:
    return bool(block.rows if isinstance(block, Table) else kept(block))


def _text(block: Union[Facts, Table]) -> str:
    if isinstance(block, Table):
        made = plain_table(block.headings, [[_cell(cell) for cell in row] for row in block.rows])
        return f"{printable(block.title)}\n{made}" if block.title else made
    facts = kept(block)
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name.ljust(width)}  {printable(plain(value))}" for name, value in facts)


def _html(block: Union[Facts, Table]) -> str:
    if isinstance(block, Table):
        title = f"<caption>{_safe(block.title)}</caption>" if block.title else ""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in block.headings)
        rows = "".join("<tr>" + "".join(f"<td>{_safe(_cell(cell))}</td>" for cell in row)
                       + "</tr>" for row in block.rows)
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{_safe(plain(value))}</td></tr>"
                   for name, value in kept(block))
    return f"<table><tbody>{rows}</tbody></table>"


def _cell(value: Any) -> str:
    return "" if value is None else plain(value)


def _safe(text: str) -> str:
    return html.escape(printable(text))
