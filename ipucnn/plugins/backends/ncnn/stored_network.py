"""Loads a network in ncnn's format, which an earlier run has stored or this one translates."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Iterator, List, Optional

import ncnn  # a backend's engine is loaded when it is used

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import DataError, IpucnnError, OutOfMemoryError
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.graph_facts import identity
from ipucnn.onnx.kept_folders import KeptFolder
from ipucnn.plugins.backends.ncnn.param_file import Layer, text_of, write_weights
from ipucnn.version import __version__

log = logging.getLogger("ipucnn.graphs")

_LAYERS, _WEIGHTS, _STATE = "network.param", "network.bin", "network.json"


def load(net: ncnn.Net, graph: Graph) -> None:
    """Load a graph into an empty network of ncnn, from its stored form if there is one.

    Args:
        net: with its options set.
        graph: the model; without the path of a file, it is not stored.

    Raises:
        UnsupportedNetworkError: the network cannot be translated, or its file is damaged.
        IpucnnError: there is no space for its files, or no memory.
    """
    kept = None
    if graph.path:
        # the file and the code determine the network, and ncnn's format has no versions
        kept = KeptFolder.of("ncnn", (identity(Path(graph.path)), _code()), _STATE)
        if kept.there() and _read(net, kept.path):
            return
    with _errors():
        _translate(net, graph, kept)


@lru_cache(maxsize=None)
def _code() -> str:
    """Return the state of the code that translates."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns)
              for path in sorted(Path(__file__).parent.glob("*.py"))]
    return repr((__version__, states))


def _read(net: ncnn.Net, folder: Path) -> bool:
    """Load the network in a folder; return whether its files are complete and can be loaded."""
    try:
        state = parsed_json((folder / _STATE).read_text())
        layers = (folder / _LAYERS).read_bytes()
        size = (folder / _WEIGHTS).stat().st_size
        if (state["layers"], state["weights"]) != (hashlib.sha256(layers).hexdigest(), size):
            raise ValueError("its files are not complete")
        # a text that ncnn cannot parse could end the process: it is the one that was written
        codes = net.load_param(str(folder / _LAYERS)), net.load_model(str(folder / _WEIGHTS))
        if any(codes):
            raise ValueError(f"ncnn returns the codes {codes}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.info("network '%s' is not used: %s", folder, error)
        net.clear()
        return False
    return True


def _translate(net: ncnn.Net, graph: Graph, kept: Optional[KeptFolder]) -> None:
    """Translate a graph, store it if possible, and load it."""
    from ipucnn.plugins.backends.ncnn.graph_view import GraphView
    from ipucnn.plugins.backends.ncnn.translators import translated

    # not `graph.proto`, which would stay in memory
    layers = translated(GraphView.of(graph.made(), graph.input_name, graph.batch))
    if kept is not None:
        try:
            with kept.filled() as partial:
                _write(layers, partial)
        except OSError as error:  # a full disk, or a folder that is not the user's
            log.info("the network is not stored in '%s': %s", kept.path, error)
        # a damaged one stays where another process uses it
        if kept.there() and _read(net, kept.path):
            return
    with tempfile.TemporaryDirectory(prefix="ipucnn-ncnn-") as folder:
        _write(layers, Path(folder))
        if not _read(net, Path(folder)):
            raise IpucnnError("ncnn cannot load the network, or there is too little memory",
                              "try another backend")


def _write(layers: List[Layer], folder: Path) -> None:
    text = text_of(layers)
    (folder / _LAYERS).write_text(text)
    with open(folder / _WEIGHTS, "wb") as file:
        size = write_weights(layers, file)
    (folder / _STATE).write_text(json.dumps(
        {"layers": hashlib.sha256(text.encode()).hexdigest(), "weights": size}))


@contextmanager
def _errors() -> Iterator[None]:
    """Convert errors of reading the graph and of writing the network."""
    from ipucnn.plugins.backends.ncnn.graph_view import refusal

    try:
        yield
    except DataError as error:  # a stored graph that is damaged is exported again
        raise refusal(error.message) from error
    except MemoryError as error:
        raise OutOfMemoryError("there is no memory to load the network into ncnn",
                               "use a smaller network") from error
    except OSError as error:
        raise IpucnnError(f"the network cannot be written for ncnn: {error.strerror or error}",
                          f"free space in '{tempfile.gettempdir()}', or set TMPDIR") from error
