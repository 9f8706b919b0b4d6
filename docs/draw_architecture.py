"""Draw the rooms of the package and the imports between them as an SVG picture.

Usage: `python docs/draw_architecture.py ROOT_OF_A_CHECKOUT OUT.svg`. A *room* is a package or a
loose module; `tests/test_architecture.py` of the checkout lists them, and without it every loose
module of `ipucnn` and of `ipucnn.core` is one. A room stands one floor above the highest room that
it imports from; rooms that import each other share a floor.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence, Set, Tuple

WIDTH, RIGHT, TOP, STEP, HEIGHT = 1190, 990, 76, 80, 40
"""Of the picture, its floors and its title; of a floor and of a box; in pixels."""

COLOURS = {"core": ("#fff1cf", "#b98500"), "plugins": ("#dcf3e6", "#2e8b62"),
           "other": ("#e3ecfa", "#4a72b0")}
DARK, RED = "#4b5a70", "#d02525"
HEAD = ('<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0,1 L8,4 L0,7 z" fill="{colour}"/>'
        "</marker>")
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}"
width="{width}" height="{height:.0f}" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif"
font-size="10" fill="#3c4654" text-anchor="middle">
<style>.name {{ font-size: 12px; font-weight: bold; fill: #16202e }}</style>
{heads}
<rect width="{width}" height="{height:.0f}" rx="8" fill="#ffffff"/>
<text x="20" y="28" class="name" text-anchor="start">{numbers}</text>
<text x="20" y="48" text-anchor="start">A box is a room; its width grows with its lines. An arrow
stands for imports, darker for more; it may pass behind a box. Yellow: core. Green: plugins.
Red: a circle.</text>
{drawn}
</svg>
"""
Arrows = Dict[Tuple[str, str], int]


@dataclass
class Room:
    """A room: its name in the picture, its modules, their lines, and its box."""

    label: str = ""
    modules: int = 0
    lines: int = 0
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def size(self) -> str:
        """Its size in words."""
        return (f"{self.modules} modules · " if self.modules > 1 else "") + f"{self.lines:,} lines"

    def near(self, x: float) -> float:
        """Return the point of its upper or lower edge that is nearest to `x`."""
        return min(max(x, self.x + 12), self.x + self.width - 12)


def listed_rooms(root: Path) -> Optional[Sequence[str]]:
    """Return the rooms that the checkout's test of its architecture lists, or None."""
    test = root / "tests" / "test_architecture.py"
    for node in ast.parse(test.read_text()).body if test.exists() else ():
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ROOMS":
            rooms: Sequence[str] = ast.literal_eval(node.value)
            return rooms
    return None


def room_of(module: str, listed: Optional[Sequence[str]]) -> str:
    """Return the room of a module; a kind of plugins is a room (``plugins.models``)."""
    parts = module.split(".")[1:]
    deep = parts[1:] and (parts[0] == "plugins" or (
        parts[0] == "core" and (listed is None or ".".join(parts[:2]) in listed)))
    return ".".join(parts[:2 if deep else 1])


def read(root: Path) -> Tuple[Dict[str, Room], Arrows]:
    """Return the rooms of a checkout, and the number of imports between any two."""
    import grimp

    sys.path.insert(0, str(root))
    listed = listed_rooms(root)
    graph = grimp.build_graph("ipucnn", exclude_type_checking_imports=True, cache_dir=None)
    rooms: Dict[str, Room] = defaultdict(Room)
    arrows: Arrows = Counter()
    for module in sorted(graph.modules):
        path = root / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        name = room_of(module, listed)
        short = listed is None or name.startswith("plugins.")
        rooms[name].label = name.rpartition(".")[2] if short else name
        rooms[name].modules += 1
        rooms[name].lines += len(path.read_text().splitlines())
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if room_of(imported, listed) != name:
                arrows[name, room_of(imported, listed)] += 1
    return rooms, arrows


def floors(rooms: Dict[str, Room], arrows: Arrows) -> Dict[str, int]:
    """Return the floor of each room: the longest path below it, circles counted as one room."""
    below: Dict[str, Set[str]] = {name: {name} for name in rooms}
    for _ in rooms:
        for above, under in arrows:
            below[above] |= below[under]
    circle = {name: {other for other in below[name] if name in below[other]} for name in rooms}
    level: Dict[str, int] = {}
    for name in sorted(rooms, key=lambda name: len(below[name])):
        level[name] = 1 + max((level[under] for above, under in arrows
                               if above in circle[name] and under not in circle[name]), default=-1)
    return level


def place(rooms: Dict[str, Room], arrows: Arrows, level: Dict[str, int]) -> None:
    """Give every room its box: on its floor, near the rooms that import from it."""
    top = max(level.values())
    for floor in range(top, -1, -1):
        pull = {name: [rooms[a].x + rooms[a].width / 2 for a, b in arrows if b == name]
                for name in rooms if level[name] == floor}
        row = sorted(pull, key=lambda name: sum(pull[name]) / max(1, len(pull[name])))
        for room in (rooms[name] for name in row):
            room.width = max(room.lines * 0.09, len(room.label) * 8.4 + 14,
                             len(room.size) * 5.7 + 14)
        free = RIGHT - 40 - sum(rooms[name].width for name in row)
        gap = free / (len(row) + 1)
        x = 40 + (free * (0.25, 0.7)[floor % 2] if len(row) == 1 else gap)
        for room in (rooms[name] for name in row):
            room.x, room.y = x, TOP + (top - floor) * STEP
            x += room.width + gap


def box(name: str, room: Room) -> str:
    """Return the drawing of a room."""
    fill, line = COLOURS.get(name.split(".")[0], COLOURS["other"])
    middle = f'<text x="{room.x + room.width / 2:.0f}"'
    return (f'<rect x="{room.x:.0f}" y="{room.y:.0f}" width="{room.width:.0f}" height="{HEIGHT}" '
            f'rx="5" fill="{fill}" stroke="{line}"/>{middle} y="{room.y + 17:.0f}" class="name">'
            f'{room.label}</text>{middle} y="{room.y + 31:.0f}">{room.size}</text>')


def arrow(start: Tuple[float, float], end: Tuple[float, float], imports: int, colour: str,
          left: float = 0) -> str:
    """Return the drawing of an arrow; it leaves its start downwards, or to the left."""
    (x, y), (to_x, to_y) = start, end
    bend, strength = max(18, abs(to_y - y) * 0.4), min(1.0, imports / 20)
    opacity = 1 if colour == RED else 0.3 + 0.55 * strength
    return (f'<path d="M{x:.0f},{y:.0f} C{x - left:.0f},{y + (0 if left else bend):.0f} '
            f'{to_x:.0f},{to_y - bend:.0f} {to_x:.0f},{to_y:.0f}" stroke="{colour}" fill="none" '
            f'stroke-width="{0.9 + 1.5 * strength:.1f}" opacity="{opacity:.2f}" '
            f'marker-end="url(#{colour[1:]})"/>')


def draw(root: Path) -> Tuple[str, str]:
    """Return the picture of a checkout, and its numbers in words."""
    everything, arrows = read(root)
    linked = sorted({name for pair in arrows for name in pair} - {"", "plugins"})
    kinds = {name: everything[name] for name in linked if name.startswith("plugins.")}
    rooms = {name: everything[name] for name in linked if name not in kinds}
    inner = {pair: n for pair, n in arrows.items() if rooms.keys() >= set(pair)}
    level = floors(rooms, inner)
    place(rooms, inner, level)
    back = {pair for pair in inner if level[pair[0]] == level[pair[1]]}
    bottom = TOP + max(level.values()) * STEP + HEIGHT
    drawn = []
    for floor in range(max(level.values()) + 1):
        y = bottom - HEIGHT - floor * STEP
        drawn.append(f'<rect x="8" y="{y - 9}" width="{RIGHT}" height="{HEIGHT + 18}" '
                     f'fill="#f5f7fa"/><text x="22" y="{y + 24}">{floor}</text>')
    for (above, under), imports in sorted(inner.items(), key=lambda item: item[1]):
        a, b = rooms[above], rooms[under]
        x = a.near(b.near(a.x + a.width / 2))
        drawn.append(arrow((x, a.y + HEIGHT), (b.near(x), b.y), imports,
                           RED if (above, under) in back else DARK))
    side, green = RIGHT + 22, COLOURS["plugins"][1]
    used = Counter({room: n for room in rooms
                    for n in [sum(arrows.get((kind, room), 0) for kind in kinds)] if n})
    for name, imports in used.items():
        end = rooms[name].near(RIGHT - 40), rooms[name].y
        drawn.append(arrow((side, end[1] - 14), end, imports, green, 40))
    top = min(bottom - 28 - 46 * len(kinds), *(rooms[name].y - 30 for name in used))
    drawn.append(f'<rect x="{side}" y="{top}" width="{WIDTH - side - 8}" height="{bottom - top}" '
                 f'rx="6" fill="#f3fbf6" stroke="{green}"/><text x="{(side + WIDTH - 8) / 2}" '
                 f'y="{top + 18}" class="name">plugins</text>')
    for number, room in enumerate(kinds.values()):
        room.x, room.width = side + 8, WIDTH - side - 24
        room.y = top + 26 + number * (bottom - top - 26) / len(kinds)
    drawn += [box(name, room) for name, room in (*rooms.items(), *kinds.items())]
    core = [room for name, room in everything.items() if name.split(".")[0] == "core"]
    numbers = (
        f"{len(rooms)} rooms on {max(level.values()) + 1} floors · {len(inner)} arrows, "
        f"{len(back)} in circles · core: {sum(room.lines for room in core):,} lines in "
        f"{sum(room.modules for room in core)} modules · all: "
        f"{sum(room.lines for room in everything.values()):,} lines in "
        f"{sum(room.modules for room in everything.values())} modules")
    heads = "\n".join(HEAD.format(name=colour[1:], colour=colour) for colour in (DARK, RED, green))
    return PICTURE.format(width=WIDTH, height=bottom + 16, numbers=numbers, heads=heads,
                          drawn="\n".join(drawn)), numbers


if __name__ == "__main__":
    picture, in_words = draw(Path(sys.argv[1]).resolve())
    Path(sys.argv[2]).write_text(picture)
    print(in_words)
