"""Draw the components of the package and the imports between them as an SVG picture.

Usage: `python docs/draw_architecture.py ROOT_OF_A_CHECKOUT OUT.svg`. A *component* is a package or
a single module; `tests/test_architecture.py` of the checkout lists them, and without it every
package and module in `ipucnn` and in `ipucnn.core` is one. A component is one layer above the
highest component that it imports from; components that import each other share a layer.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence, Set, Tuple

WIDTH, RIGHT, TOP, STEP, HEIGHT = 1190, 990, 76, 80, 40
"""Width of the picture and of its layers, height of its title, of a layer and of a box; pixels."""

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
<text x="20" y="48" text-anchor="start">A box is a component; its width grows with
its lines of code. An arrow stands for imports, darker for more; it may pass behind a box.
Yellow: core. Green: plugins. Red: a cycle.</text>
{drawn}
</svg>
"""
Arrows = Dict[Tuple[str, str], int]


@dataclass
class Component:
    """A component: its name in the picture, its number of modules and lines, and its box."""

    label: str = ""
    modules: int = 0
    lines: int = 0
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def size(self) -> str:
        """Its numbers of modules and lines, as text."""
        return (f"{self.modules} modules · " if self.modules > 1 else "") + f"{self.lines:,} lines"

    def near(self, x: float) -> float:
        """Return the point of its upper or lower edge that is nearest to `x`."""
        return min(max(x, self.x + 12), self.x + self.width - 12)


def listed_components(root: Path) -> Optional[Sequence[str]]:
    """Return the components that `tests/test_architecture.py` of a checkout lists, or None."""
    test = root / "tests" / "test_architecture.py"
    for node in ast.parse(test.read_text()).body if test.exists() else ():
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMPONENTS":
            components: Sequence[str] = ast.literal_eval(node.value)
            return components
    return None


def component_of(module: str, listed: Optional[Sequence[str]]) -> str:
    """Return the component of a module; a kind of plugins is a component (``plugins.models``)."""
    parts = module.split(".")[1:]
    deep = parts[1:] and (parts[0] == "plugins" or (
        parts[0] == "core" and (listed is None or ".".join(parts[:2]) in listed)))
    return ".".join(parts[:2 if deep else 1])


def read(root: Path) -> Tuple[Dict[str, Component], Arrows]:
    """Return the components of a checkout, and the number of imports between any two."""
    import grimp

    sys.path.insert(0, str(root))
    listed = listed_components(root)
    graph = grimp.build_graph("ipucnn", exclude_type_checking_imports=True, cache_dir=None)
    components: Dict[str, Component] = defaultdict(Component)
    arrows: Arrows = Counter()
    for module in sorted(graph.modules):
        path = root / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        name = component_of(module, listed)
        short = listed is None or name.startswith("plugins.")
        components[name].label = name.rpartition(".")[2] if short else name
        components[name].modules += 1
        components[name].lines += len(path.read_text().splitlines())
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if component_of(imported, listed) != name:
                arrows[name, component_of(imported, listed)] += 1
    return components, arrows


def layers(components: Dict[str, Component], arrows: Arrows) -> Dict[str, int]:
    """Return the layer of each component: the longest path below it; a cycle counts once."""
    below: Dict[str, Set[str]] = {name: {name} for name in components}
    for _ in components:
        for above, under in arrows:
            below[above] |= below[under]
    cycle = {name: {other for other in below[name] if name in below[other]} for name in components}
    level: Dict[str, int] = {}
    for name in sorted(components, key=lambda name: len(below[name])):
        level[name] = 1 + max((level[under] for above, under in arrows
                               if above in cycle[name] and under not in cycle[name]), default=-1)
    return level


def place(components: Dict[str, Component], arrows: Arrows, level: Dict[str, int]) -> None:
    """Place the box of every component in its layer, near the components that import from it."""
    top = max(level.values())
    for layer in range(top, -1, -1):
        pull = {name: [components[a].x + components[a].width / 2 for a, b in arrows if b == name]
                for name in components if level[name] == layer}
        row = sorted(pull, key=lambda name: sum(pull[name]) / max(1, len(pull[name])))
        for component in (components[name] for name in row):
            component.width = max(component.lines * 0.09, len(component.label) * 8.4 + 14,
                             len(component.size) * 5.7 + 14)
        free = RIGHT - 40 - sum(components[name].width for name in row)
        gap = free / (len(row) + 1)
        x = 40 + (free * (0.25, 0.7)[layer % 2] if len(row) == 1 else gap)
        for component in (components[name] for name in row):
            component.x, component.y = x, TOP + (top - layer) * STEP
            x += component.width + gap


def box(name: str, component: Component) -> str:
    """Return the drawing of a component."""
    fill, line = COLOURS.get(name.split(".")[0], COLOURS["other"])
    x, y, width = component.x, component.y, component.width
    middle = f'<text x="{x + width / 2:.0f}"'
    return (f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5" '
            f'fill="{fill}" stroke="{line}"/>{middle} y="{y + 17:.0f}" class="name">'
            f'{component.label}</text>{middle} y="{y + 31:.0f}">{component.size}</text>')


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
    """Return the picture of a checkout, and a line with its numbers."""
    everything, arrows = read(root)
    linked = sorted({name for pair in arrows for name in pair} - {"", "plugins"})
    kinds = {name: everything[name] for name in linked if name.startswith("plugins.")}
    components = {name: everything[name] for name in linked if name not in kinds}
    inner = {pair: n for pair, n in arrows.items() if components.keys() >= set(pair)}
    level = layers(components, inner)
    place(components, inner, level)
    back = {pair for pair in inner if level[pair[0]] == level[pair[1]]}
    bottom = TOP + max(level.values()) * STEP + HEIGHT
    drawn = []
    for layer in range(max(level.values()) + 1):
        y = bottom - HEIGHT - layer * STEP
        drawn.append(f'<rect x="8" y="{y - 9}" width="{RIGHT}" height="{HEIGHT + 18}" '
                     f'fill="#f5f7fa"/><text x="22" y="{y + 24}">{layer}</text>')
    for (above, under), imports in sorted(inner.items(), key=lambda item: item[1]):
        a, b = components[above], components[under]
        x = a.near(b.near(a.x + a.width / 2))
        drawn.append(arrow((x, a.y + HEIGHT), (b.near(x), b.y), imports,
                           RED if (above, under) in back else DARK))
    side, green = RIGHT + 22, COLOURS["plugins"][1]
    used = Counter({component: n for component in components
                    for n in [sum(arrows.get((kind, component), 0) for kind in kinds)] if n})
    for name, imports in used.items():
        end = components[name].near(RIGHT - 40), components[name].y
        drawn.append(arrow((side, end[1] - 14), end, imports, green, 40))
    top = min(bottom - 28 - 46 * len(kinds), *(components[name].y - 30 for name in used))
    drawn.append(f'<rect x="{side}" y="{top}" width="{WIDTH - side - 8}" height="{bottom - top}" '
                 f'rx="6" fill="#f3fbf6" stroke="{green}"/><text x="{(side + WIDTH - 8) / 2}" '
                 f'y="{top + 18}" class="name">plugins</text>')
    for number, component in enumerate(kinds.values()):
        component.x, component.width = side + 8, WIDTH - side - 24
        component.y = top + 26 + number * (bottom - top - 26) / len(kinds)
    drawn += [box(name, component) for name, component in (*components.items(), *kinds.items())]
    core = [component for name, component in everything.items() if name.split(".")[0] == "core"]
    numbers = (
        f"{len(components)} components in {max(level.values()) + 1} layers · "
        f"{len(inner)} dependencies, {len(back)} in cycles · core: "
        f"{sum(component.lines for component in core):,} lines in "
        f"{sum(component.modules for component in core)} modules · all: "
        f"{sum(component.lines for component in everything.values()):,} lines in "
        f"{sum(component.modules for component in everything.values())} modules")
    heads = "\n".join(HEAD.format(name=colour[1:], colour=colour) for colour in (DARK, RED, green))
    return PICTURE.format(width=WIDTH, height=bottom + 16, numbers=numbers, heads=heads,
                          drawn="\n".join(drawn)), numbers


if __name__ == "__main__":
    picture, in_words = draw(Path(sys.argv[1]).resolve())
    Path(sys.argv[2]).write_text(picture)
    print(in_words)
