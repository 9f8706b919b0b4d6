"""Reads networks from ONNX files."""

from __future__ import annotations

import os
import shlex
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Iterator, Optional, Tuple

from ipucnn.core.errors import DataError, PluginError, UnavailableError, UsageError
from ipucnn.core.files import read_limited
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import IMAGENET_CLASSES, imagenet_names
from ipucnn.onnx import graph_facts
from ipucnn.onnx.config_beside import NAMES, files_beside, names_beside, preprocessing_beside
from ipucnn.onnx.embedded_metadata import Metadata
from ipucnn.onnx.graph_facts import GraphFacts
from ipucnn.onnx.target import INSTALL, MOST_BYTES, nodes, opset_of, subgraphs

if TYPE_CHECKING:
    import onnx

_KEPT = 1024
"""Maximum size in bytes of weights whose values are kept without reading the whole model, such as
shapes that a graph computes with."""


class OnnxNetwork:
    """The network in an ONNX file, in place of a module; engines read the file, or use `whole`.

    Attributes:
        facts: the description of its graph.
        path: its file.
        one_file: whether all weights are in this file.
        metadata: embedded in the file.
        card: of the model; completed from the graph for files of other programs.
        input_name: name of the image input.
        input_size: height and width of the images.
        input_type: `uint8`, `float32` or `float16`.
        batch: images per call; None when any number is accepted.
        num_outputs: values per image.
        half_weights: its weights are float16.
    """

    def __init__(self, facts: GraphFacts, path: str, one_file: bool = True,
                 outline: Optional[onnx.ModelProto] = None) -> None:
        self.facts = facts
        self.path = path
        self.one_file = one_file
        self._outline = outline
        self.input_name, self.input_type = facts.input_name, facts.input_type
        self.batch, self.input_size = facts.batch, facts.input_size
        self.num_outputs, self.half_weights = facts.num_outputs, facts.half_weights
        try:
            self.metadata = Metadata.of(facts.properties, self.num_outputs)
            self.card = self._card()
        except PluginError as error:
            raise DataError(f"'{path}': {error.message}", "export it again") from error
        if self.card.num_outputs != self.num_outputs:
            raise DataError(f"'{path}' has {self.num_outputs} outputs and describes "
                            f"{self.card.num_outputs}", "export it again")
        described = self.card.preprocessing.input_size
        if described != self.input_size:
            raise DataError(f"'{path}' takes images of {self.input_size} pixels and describes "
                            f"{described}", "export it again")

    @property
    def outline(self) -> onnx.ModelProto:
        """The model without the values of its larger weights.

        Raises:
            DataError: the file cannot be read any more.
        """
        if self._outline is None:
            self._outline = _outline(Path(self.path))[0]
        return self._outline

    @property
    def name(self) -> str:
        """The network's name: from the metadata, or the file's own name."""
        return self.card.model or Path(self.path).stem

    def _card(self) -> ModelCard:
        """Return the card in the file, or one made from the graph's description.

        Raises:
            PluginError: the card is damaged, or contradicts the graph.
        """
        outputs, sigmoid = self.facts.outputs, self.facts.sigmoid
        card = self.metadata.card
        if card is not None:
            return card if card.outputs == outputs else replace(card, outputs=outputs)
        beside = names_beside(Path(self.path), self.num_outputs)
        names = self.metadata.class_names or beside
        if not names and self.num_outputs == IMAGENET_CLASSES:
            names = imagenet_names()
        return ModelCard(
            model="", num_outputs=self.num_outputs, class_names=names, outputs=outputs,
            multi_label=sigmoid and self.num_outputs > 1,
            preprocessing=preprocessing_beside(Path(self.path), self.input_size)
            or Preprocessing(input_size=self.input_size, assumed=True),
            provenance={"weights": self.path, **(
                {"class names": NAMES} if beside and names is beside else {})})

    def whole(self) -> onnx.ModelProto:
        """Return the model with all of its weights, which is read again.

        Raises:
            DataError: the file cannot be read any more.
        """
        with _errors(Path(self.path)):
            proto = _parsed(Path(self.path))
            if not self.one_file:
                _load_outside(proto, Path(self.path))
            return proto

    @property
    def normalisation(self) -> str:
        """Where images are normalised: `device`, `host` or `none`."""
        if not self.metadata.normalisation:  # a file of another program
            # bytes cannot be normalised before
            return "device" if self.input_type == "uint8" else "host"
        return self.metadata.normalisation


def find_file(path: str, model: str, batch: int) -> Path:
    """Return the ONNX file selected by `--onnx`.

    Args:
        path: a file, or a folder written by `ipucnn export`: `<model>/model_<batch>.onnx`, or
            `<model>/model.onnx` for any batch.
        model: the model's name.
        batch: the micro-batch.

    Raises:
        DataError: there is none; the message names the files searched for.
    """
    given = Path(path)
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError(f"there is no ONNX file '{path}'",
                            "'--onnx' takes a file, or a folder that 'ipucnn export' filled")
        return given
    wanted = [given / model / f"model_{batch}.onnx", given / model / "model.onnx"]
    for candidate in wanted:
        if candidate.is_file():
            return candidate
    files = sorted(given.glob("*.onnx"))
    raise DataError(
        f"there is no '{wanted[0]}' and no '{wanted[1]}'",
        f"name the file: '--onnx {shlex.quote(str(files[0]))}'" if files else
        f"'ipucnn export --model {model} --batch-size {batch} --model-path "
        f"{shlex.quote(path)}' writes it")


def read_network(path: Path) -> OnnxNetwork:
    """Read an ONNX file that classifies images; the values of larger weights are not kept.

    Raises:
        DataError: it is missing, damaged, too large, or its input and output are not those of an
            image classifier.
        UnavailableError: the onnx package is missing.
    """
    try:
        status = path.stat()
    except OSError:  # reading it reports the cause
        return _read(path)
    if S_ISREG(status.st_mode) and status.st_size > MOST_BYTES:  # even its hash takes long
        raise _too_large(path, status.st_size)
    # options need the card of the file that the run reads then
    return _read_once(path, (_state(status), *_state_beside(path)), S_ISREG(status.st_mode))


def _state(status: os.stat_result) -> Tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _state_beside(path: Path) -> Tuple[Tuple[int, int, int], ...]:
    try:
        return tuple(_state(file.stat()) for file in files_beside(path))
    except OSError:
        return ()


@lru_cache(maxsize=1)
def _read_once(path: Path, _states: Tuple[Tuple[int, int, int], ...],
               regular: bool) -> OnnxNetwork:
    try:
        facts = graph_facts.kept(path) if regular else None
    except OSError:
        facts = None
    return _read(path) if facts is None else OnnxNetwork(facts, str(path))


def _read(path: Path) -> OnnxNetwork:
    outline, one_file = _outline(path)
    facts = GraphFacts.of(outline, str(path))
    network = OnnxNetwork(facts, str(path), one_file, outline)
    if one_file:  # each of several files can change
        graph_facts.keep(path, facts)
    return network


def _outline(path: Path) -> Tuple[onnx.ModelProto, bool]:
    """Read and check a file; return the model in it, and whether all weights are in this file."""
    try:
        import onnx
    except ImportError as error:
        raise UnavailableError("reading ONNX files needs the onnx package", INSTALL) from error

    with _errors(path):
        proto = _parsed(path)
        _check_version(proto, path)
        outside = [tensor for tensor in _tensors(proto)
                   if tensor.data_location == onnx.TensorProto.EXTERNAL]
        if outside:
            for tensor in outside:
                _check_location(tensor)
            if path.stat().st_size + sum(map(_bytes, outside)) > MOST_BYTES:
                raise _too_large(path, path.stat().st_size + sum(map(_bytes, outside)))
            _load_outside(proto, path)
            for tensor in outside:
                if len(tensor.raw_data) != _bytes(tensor):  # newer releases of onnx check this
                    raise ValueError(f"the weights of tensor '{tensor.name}' are cut short")
            onnx.checker.check_model(proto)
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) > _KEPT:
                tensor.ClearField("raw_data")
        if not outside:
            onnx.checker.check_model(str(path))  # in less memory than the parsed model takes
    return proto, not outside


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Convert the errors of reading a file into one line."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        yield
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it cannot be decoded"])[0]
        raise DataError(f"'{path}' is damaged or not an ONNX file: {reason}",
                        "fetch or export it again") from error
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}",
                        "check the file, and those beside it that hold its weights") from error


def _parsed(path: Path) -> onnx.ModelProto:
    """Return the model in a file, without the weights in other files."""
    import onnx

    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _too_large(path, size)
    return onnx.load_model_from_string(read_limited(path, MOST_BYTES))


def _check_version(proto: onnx.ModelProto, path: Path) -> None:
    """Raise an error for a file that is newer than the onnx package, which cannot check it."""
    import onnx

    for what, version, newest in (
            ("format version (IR)", proto.ir_version, int(onnx.IR_VERSION)),
            ("operator set", opset_of(proto), onnx.defs.onnx_opset_version())):
        if version > newest:
            raise DataError(
                f"'{path}' has {what} {version}, and onnx {onnx.__version__} reads up to {newest}",
                "install a newer onnx package, or export it again with an older operator set")


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all tensors of a model, those in attributes and subgraphs included."""
    for graph in (proto.graph, *subgraphs(proto.graph)):
        yield from graph.initializer
    for node in chain(nodes(proto.graph.node), *(
            nodes(function.node) for function in proto.functions)):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _load_outside(proto: onnx.ModelProto, path: Path) -> None:
    """Read the weights that are in other files."""
    import onnx

    onnx.external_data_helper.load_external_data_for_model(proto, str(path.parent))


def _check_location(tensor: onnx.TensorProto) -> None:
    """Refuse weights that are not in or below the folder of the model."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if os.path.isabs(location) or ".." in location.replace("\\", "/").split("/"):
        raise ValueError(f"the weights of tensor '{tensor.name}' are outside of its folder, in "
                         f"{location!r}")


def _bytes(tensor: onnx.TensorProto) -> int:
    """Return the size in bytes of a tensor from its shape and type."""
    from onnx import helper

    count = int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    for dim in tensor.dims:
        count *= dim
    return count


def _too_large(path: Path, size: int) -> DataError:
    return DataError(f"'{path}' holds {size / 2**30:.1f} GiB, and a protocol buffer less than 2",
                     "use a smaller network, or half precision")


def check_batch(network: OnnxNetwork, micro_batch: int) -> None:
    """Raise an error for a micro-batch size that a file does not accept.

    Raises:
        UsageError: the file has another size.
    """
    if network.batch not in (None, micro_batch):
        raise UsageError(
            f"'{network.path}' takes {network.batch} images per call, not {micro_batch}",
            f"use '--batch-size {network.batch}', or export one with '--batch-size {micro_batch}' "
            "or '--dynamic-batch'")
