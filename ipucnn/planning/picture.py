"""Draws the stages of a plan: as SVG, and with characters for a terminal."""

from __future__ import annotations

from html import escape
from typing import List, Sequence

from ipucnn.core.names import cells, padded, printable, shortened
from ipucnn.models.stage_memory import MIB, StageMemory
from ipucnn.planning.stages import Estimate, Pipeline

PARTS = (("weights", "#3b6fb6", "#6f9fe0", "\u2588"), ("gradients", "#8a63b8", "#b493dd", "\u2593"),
         ("optimizer", "#b0679a", "#d892c2", "\u2592"),
         ("activations", "#d08a2e", "#e3a857", "\u2591"), ("other", "#8b8f96", "#7d828a", "\u00b7"))
"""Parts of a stage's memory: name, colour on light and on dark ground, and character."""

_WIDTH, _NAMES, _BAR, _ROW = 820, 190, 470, 24
_MOST_CELLS = 23  # of a stage's name in the picture: 12 pixels of a monospaced font each 7.3 wide


def parts_of(memory: StageMemory) -> List[int]:
    """Return the bytes of a stage in the order of `PARTS`."""
    return [memory.weights, memory.gradients, memory.optimizer, memory.activations,
            memory.images + memory.temporary + memory.overhead]


def bars(pipeline: Pipeline, width: int = 80) -> str:
    """Return the multiply-adds and the memory of the stages as lines of characters.

    Args:
        pipeline: the stages.
        width: of a line.
    """
    names = [shortened(printable(stage.begins_at), 20) for stage in pipeline.stages]
    room = max(map(cells, names))
    length = width - room - 12
    lines: List[str] = []
    if len(names) > 1:
        most = max(stage.share for stage in pipeline.stages) or 1
        lines.append("multiply-adds")
        lines += [_line(name, room, "\u2588" * round(stage.share / most * length), length,
                        f"{stage.share:.1%}")
                  for name, stage in zip(names, pipeline.stages)] + [""]
    estimate = pipeline.estimates[0]
    scale = max(estimate.device.memory, estimate.largest)
    lines.append(f"memory on {estimate.device.name}, {estimate.precision}")
    for name, memory in zip(names, estimate.stages):
        drawn, done, total = "", 0, 0
        for (_, _, _, sign), size in zip(PARTS, parts_of(memory)):
            total += size
            drawn += sign * (round(total / scale * length) - done)
            done = round(total / scale * length)
        limit = min(length - 1, round(estimate.device.memory / scale * length))
        drawn = drawn.ljust(length)
        drawn = drawn[:limit] + "|" + drawn[limit + 1:]
        lines.append(_line(name, room, drawn, length, f"{memory.total / MIB:,.0f} MiB"))
    lines.append(", ".join(f"{sign} {name}" for name, _, _, sign in PARTS) + ", | limit")
    return "\n".join(lines)


def _line(name: str, room: int, drawn: str, length: int, text: str) -> str:
    return f"{padded(name, room)}  {drawn.ljust(length)} {text:>9}"


def svg(title: str, pipeline: Pipeline) -> str:
    """Return the multiply-adds and the memory of the stages as an SVG picture.

    It contains no script, loads nothing, and supports light and dark mode.

    Args:
        title: title of the picture.
        pipeline: the stages.
    """
    estimate = pipeline.estimates[0]
    names = [shortened(printable(stage.begins_at), _MOST_CELLS) for stage in pipeline.stages]
    body: List[str] = [_text(16, 30, shortened(printable(title), 80), "title")]
    body.append(_text(16, 52, f"balance {pipeline.balance:.0%}, stages have work for "
                              f"{pipeline.fill:.0%} of the time: efficiency {pipeline.use:.0%}"))
    most = max(stage.share for stage in pipeline.stages) or 1
    top = 88
    body.append(_text(16, top - 8, "Multiply-adds, and their mean", "head"))
    for number, stage in enumerate(pipeline.stages):
        body += _row(top + number * _ROW, names[number], [stage.share / most], ["work"],
                     f"{stage.share:.1%}")
    body.append(_limit(1 / len(names) / most, top, len(names)))
    top += len(names) * _ROW + 44
    body += _memory(estimate, names, top)
    height = top + len(names) * _ROW + 76
    left = 16
    for number, (name, _, _, _) in enumerate(PARTS):
        body.append(f'<rect class="p{number}" x="{left}" y="{height - 54}" width="12" '
                    'height="12"/>')
        body.append(_text(left + 17, height - 44, name))
        left += 36 + 8 * len(name)
    body.append(_text(16, height - 18, "An estimate; 'ipucnn plan --json' lists its assumptions.",
                      "small"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img">\n<title>{escape(title)}</title>\n'
            f"<style>{_style()}</style>\n"
            f'<rect class="ground" width="{_WIDTH}" height="{height}"/>\n'
            + "\n".join(body) + "\n</svg>\n")


def _memory(estimate: Estimate, names: Sequence[str], top: int) -> List[str]:
    device = estimate.device
    scale = max(device.memory, estimate.largest)
    body = [_text(16, top - 8, f"Memory on {device.name}, {estimate.precision}, and its limit of "
                               f"{device.memory / MIB:,.0f} MiB: {estimate.verdict}", "head")]
    for number, memory in enumerate(estimate.stages):
        body += _row(top + number * _ROW, names[number],
                     [size / scale for size in parts_of(memory)],
                     [f"p{part}" for part in range(len(PARTS))],
                     f"{memory.total / MIB:,.0f} MiB")
    return [*body, _limit(device.memory / scale, top, len(names))]


def _row(top: int, name: str, shares: Sequence[float], kinds: Sequence[str],
         text: str) -> List[str]:
    found, left = [_text(16, top + 16, name, "name")], float(_NAMES)
    for share, kind in zip(shares, kinds):
        if share:
            found.append(f'<rect class="{kind}" x="{left:.1f}" y="{top + 4}" '
                         f'width="{share * _BAR:.1f}" height="{_ROW - 8}"/>')
        left += share * _BAR
    return [*found, _text(_NAMES + _BAR + 14, top + 16, text)]


def _limit(share: float, top: int, count: int) -> str:
    place = _NAMES + share * _BAR
    return (f'<line class="limit" x1="{place:.1f}" y1="{top}" x2="{place:.1f}" '
            f'y2="{top + count * _ROW}"/>')


def _text(left: float, base: float, text: str, kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text{chosen} x="{left}" y="{base}">{escape(text)}</text>'


def _style() -> str:
    def colours(ground: str, ink: str, faint: str, work: str, column: int) -> str:
        return (f".ground{{fill:{ground}}}text{{fill:{ink}}}.small{{fill:{faint}}}"
                f".work{{fill:{work}}}.limit{{stroke:{ink}}}"
                + "".join(f".p{number}{{fill:{part[column]}}}"
                          for number, part in enumerate(PARTS)))

    fixed = ("text{font:13px system-ui,sans-serif}.title{font-size:17px;font-weight:600}"
             ".head{font-weight:600}.small{font-size:11px}"
             ".name{font:12px ui-monospace,monospace}.limit{stroke-width:1.5;stroke-dasharray:4 3}")
    return (fixed + colours("#ffffff", "#1c1f23", "#5b6168", "#2f7f6b", 1)
            + "@media (prefers-color-scheme:dark){"
            + colours("#16181b", "#e6e8ea", "#a0a6ad", "#58b39b", 2) + "}")
