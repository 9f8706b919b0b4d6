"""Joins Python sources: their imports are merged, sorted and put first."""

from __future__ import annotations

import ast
import re
from typing import Dict, List, Sequence, Set, Tuple

Names = Dict[str, Set[str]]
"""The names imported from each module; an empty name is the module itself."""

_THIRD_PARTIES = ("ipucnn", "numpy", "torch")
_WIDTH = 88
_LOCAL_IMPORT = re.compile(
    r"^ +((?:import torch|from torch[\w.]* import|from ipucnn\.plugin import).*)\n\n?",
    re.MULTILINE)


def hoisted(source: str) -> str:
    """Return a source whose imports of torch within functions are at its top instead.

    For modules that are imported only when they are used.
    """
    lines = dict.fromkeys(_LOCAL_IMPORT.findall(source))
    _, _, end = _header(source)
    rows = source.splitlines(keepends=True)
    return "".join([*rows[:end], *(f"{line}\n" for line in lines),
                    _LOCAL_IMPORT.sub("", "".join(rows[end:]))])


def joined(sources: Sequence[str], docstring: str, package: str, local: bool = False) -> str:
    """Return one source for several.

    Args:
        sources: whose docstrings are left out.
        docstring: of the result.
        package: that the sources are of.
        local: the sources import each other by the package, which there is none of in the result.
    """
    names: Names = {}
    typing_only: Names = {}
    bodies = []
    for source in sources:
        tree, checked, end = _header(source)
        _collect(tree, names)
        _collect(checked, typing_only)
        bodies.append("".join(source.splitlines(keepends=True)[end:]).strip("\n"))
    for found in (names, typing_only):
        if local:
            for module in [module for module in found if _top(module) == package]:
                del found[module]
    for module, imported in list(typing_only.items()):
        imported -= names.get(module, set())
        if not imported:
            del typing_only[module]
    if not typing_only and "typing" in names:
        names["typing"].discard("TYPE_CHECKING")
    blocks = [f'"""{docstring}"""', *_rendered(names, package)]
    if typing_only:
        text = "\n\n".join(_rendered(typing_only, package))
        blocks.append("if TYPE_CHECKING:\n" + re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE))
    # constants and classes have one or two empty lines before them
    header = "\n\n".join(blocks)
    return header + "".join(_separator(body) + body for body in bodies) + "\n"


def _separator(body: str) -> str:
    return "\n\n\n" if re.match(r"(?:@|class |def )", body) else "\n\n"


def _header(source: str) -> Tuple[List[ast.stmt], List[ast.stmt], int]:
    """Return the imports at the top of a source, those for types only, and the last line."""
    imports: List[ast.stmt] = []
    checked: List[ast.stmt] = []
    end = 0
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(node)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) \
                and node.test.id == "TYPE_CHECKING":
            checked += node.body
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            break
        end = node.end_lineno or end
    return imports, checked, end


def _collect(nodes: Sequence[ast.stmt], names: Names) -> None:
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names.setdefault(node.module or "", set()).update(one.name for one in node.names)
        elif isinstance(node, ast.Import):
            for one in node.names:
                names.setdefault(one.name, set()).add("")


def _rendered(names: Names, package: str) -> List[str]:
    """Return the imports in sections: future, standard library, third parties, own package."""
    sections: Dict[int, List[str]] = {}
    for whole in (True, False):  # 'import x' stands before 'from x import y'
        for module in sorted(names):
            lines = [f"import {module}"] if "" in names[module] and whole else []
            if not whole and names[module] - {""}:
                lines = [_import_of(module, names[module] - {""})]
            sections.setdefault(_section(module, package), []).extend(lines)
    return ["\n".join(lines) for _, lines in sorted(sections.items()) if lines]


def _import_of(module: str, names: Set[str]) -> str:
    ordered = sorted(names, key=lambda name: (
        0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"


def _section(module: str, package: str) -> int:
    top = _top(module)
    return 0 if top == "__future__" else 3 if top == package else 2 if top in _THIRD_PARTIES else 1


def _top(module: str) -> str:
    return module.partition(".")[0]
