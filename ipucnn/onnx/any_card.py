"""Reads the model card of a file, of any supported format."""

from __future__ import annotations

from typing import Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import expanded_path
from ipucnn.core.registry.registry import Registry
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import chosen
from ipucnn.models.store_paths import place_of, present, shown_path
from ipucnn.models.weights_card import file_card, names_in_file
from ipucnn.onnx.network import read_network


def card_of_file(place: str, registry: Registry) -> Tuple[str, ModelCard]:
    """Return the path of a file and the model card in it.

    Args:
        place: a checkpoint, a folder of checkpoints, of which the best or else the newest is
            used, or an ONNX file.
        registry: where the model of an old checkpoint is looked up.

    Raises:
        DataError: it cannot be read, or holds weights alone.
        IpucnnError: the folder has no checkpoints.
    """
    path = place_of(place)
    if path.is_dir():
        path = chosen(path)
    present(path)
    card = card_in_file(str(path), registry)
    if card is None:
        raise DataError(f"'{shown_path(path)}' does not state which model it is of",
                        "checkpoints of 'ipucnn train' and files of 'ipucnn export' do")
    return shown_path(path), card


def card_in_file(place: str, registry: Registry) -> Optional[ModelCard]:
    """Return the model card in a checkpoint or ONNX file; None for a file with weights only.

    Raises:
        DataError: the file cannot be read.
    """
    path = expanded_path(place)
    return read_network(path).card if path.suffix.lower() == ".onnx" else file_card(place, registry)


def classes_of_file(place: str, registry: Registry) -> Optional[Tuple[str, ...]]:
    """Return the class names in a file; None for a file with weights only.

    Raises:
        DataError: the file cannot be read.
    """
    card = card_in_file(place, registry)
    return card.class_names if card is not None else names_in_file(place, registry) or None
