"""The architecture: imports go one way, and modules of one name have the same subject."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ipucnn"

# From the top layer to the bottom; a component imports only from components below it.
COMPONENTS = (
    "__main__", "cli", "commands", "api", "testing", "scaffolding", "plugin", "migration", "runs",
    "benchmarking", "planning", "inference", "onnx", "training", "training.records",
    "training.setup", "training.checkpoints", "training.metrics", "training.options", "doctor",
    "terminal", "reports", "models", "data", "core.execution", "core.options",
    "core.registry", "core", "version")

LIBRARIES = {"data", "models", "onnx", "version"}
"""What plugins may import beside core."""

ROLES = {
    "__init__", "job", "options", "_options", "verify", "engine", "devices", "errors", "inference",
    "training", "optimizers", "settings", "sdk", "target", "losses", "checks", "progress"}
"""Module names with one meaning wherever they stand: `engine` is the engine of its backend."""


def component(module):
    parts = module.split(".")
    if len(parts) == 1:
        return "ipucnn"
    inner = ".".join(parts[1:3])
    return inner if inner in COMPONENTS else parts[1]


@pytest.fixture(scope="module")
def imports():
    """Return (importer, imported) of all imports but those for type checking, lazy ones too."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("ipucnn", exclude_type_checking_imports=True, cache_dir=None)
    return [(module, imported) for module in graph.modules
            for imported in graph.find_modules_directly_imported_by(module)]


def test_imports_go_one_way(imports):
    rank = {name: layer for layer, name in enumerate(COMPONENTS)}
    back = [(importer, imported) for importer, imported in imports
            for above, below in [(component(importer), component(imported))]
            if above in rank and above != below
            and (below not in rank or rank[below] < rank[above])]
    assert back == []


def test_no_modules_import_each_other(imports):
    packages = {".".join(init.relative_to(ROOT).parts[:-1])
                for init in PACKAGE.rglob("__init__.py")}
    left = {(importer, imported) for importer, imported in imports if importer not in packages}
    while True:  # what imports nothing that is left, or is imported by nothing, is in no circle
        above, below = {one for one, _ in left}, {one for _, one in left}
        inner = {pair for pair in left if pair[0] in below and pair[1] in above}
        if inner == left:
            break
        left = inner
    assert sorted(left) == []


def test_plugins_use_the_contract_and_the_libraries_only(imports):
    wrong = [(importer, imported) for importer, imported in imports
             if component(importer) == "plugins" and component(imported) != "plugins"
             and not component(imported).startswith("core")
             and component(imported) not in LIBRARIES]
    assert wrong == []


def test_a_plugin_imports_no_other_plugin(imports):
    def owner(module):
        kind, _, rest = module[len("ipucnn.plugins."):].partition(".")
        return kind, rest.split(".")[0]

    wrong = []
    for importer, imported in imports:
        if component(importer) == component(imported) == "plugins":
            mine, other = owner(importer), owner(imported)
            # what a kind shares is a private module or folder beside its plugins
            shared = mine[0] == other[0] and (other[1].startswith("_") or mine[1].startswith("_"))
            if mine != other and other[1] and not shared:
                wrong.append((importer, imported))
    assert wrong == []


def test_every_component_is_listed():
    names = {path.stem for path in PACKAGE.iterdir()
             if path.is_dir() or path.suffix == ".py"} - {"__init__", "__pycache__", "py"}
    assert names - {"profiles", "plugins", "py.typed"} <= set(COMPONENTS)


def test_no_two_modules_of_one_name_have_different_subjects():
    where = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        # a command's module has its job's name, a suite that of its kind, a plugin its own
        plugin = path.parts[-3:-1][0] == "plugins"
        if not {"commands", "testing"} & set(path.parts) and not plugin:
            where[path.stem].append(str(path.relative_to(PACKAGE)))
    twice = {name: sorted(paths) for name, paths in where.items()
             if len(paths) > 1 and name not in ROLES}
    assert twice == {}


def test_every_folder_has_a_docstring():
    for init in PACKAGE.rglob("__init__.py"):
        first = init.read_text().split('"""')[1].strip() if '"""' in init.read_text() else ""
        assert len(first) > 20, init


def test_core_names_no_plugin_and_no_device():
    """Docstrings may cite a source; code names no built-in model, optimizer, device or launcher."""
    words = re.compile(
        r"\b(ipus?|poplar|poptorch|popart|popdist|poprun|horovod|efficientnet|resnet|mobilenet|"
        r"momentum|nesterov|rmsprop|lamb|adamw?|groupnorm|batchnorm|shortcut|webdataset|coco|"
        r"openvino|onnxruntime)\b", re.IGNORECASE)
    import ast

    found = []
    for path in (PACKAGE / "core").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree)
                      if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
        for node in ast.walk(tree):
            texts = [getattr(node, name) for name in ("id", "attr", "arg", "name")
                     if isinstance(getattr(node, name, None), str)]
            if isinstance(node, ast.Constant) and isinstance(node.value, str) \
                    and id(node) not in docstrings:
                texts.append(node.value)
            found += [(path.relative_to(PACKAGE), text) for text in texts
                      if words.search(text.replace("_", " "))]
    # an old spelling of a value: '--normalization-location ipu'
    assert [(str(path), text) for path, text in found] == [("core/options/parts.py", "ipu")]
