"""Reads published weights through timm, from its cache or the hub."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Dict, Tuple
from urllib.parse import urlsplit

import torch

import ipucnn
from ipucnn.plugin import WeightsError

FILES = ("model.safetensors", "pytorch_model.bin")
"""The names under which timm looks for weights in a repository of the hub."""


def read(published: ipucnn.PublishedWeights,
         model: torch.nn.Module) -> Tuple[str, Dict[str, torch.Tensor]]:
    """Return the file of published weights, and its entries under the names of the network.

    timm reads the file, renames entries, and resizes position embeddings to the size of the
    images. For a network that was published without a head, the entries of the head have no
    outputs, so that a new head is created for any number of classes.

    Raises:
        WeightsError: they are neither in the cache nor can they be downloaded.
    """
    import timm
    from timm.models import get_pretrained_cfg

    name = model.pretrained_cfg["architecture"]
    config = get_pretrained_cfg(f"{name}.{published.tag}" if published.tag else name)
    path = located(config, name)
    donor = timm.create_model(
        name, pretrained=True, pretrained_cfg=published.tag, num_classes=config.num_classes,
        pretrained_cfg_overlay={
            "file": path, "custom_load": config.custom_load and not config.hf_hub_id},
        **model.ipucnn_arguments)
    state = dict(donor.state_dict())
    if not config.num_classes:
        state.update({entry: value[:0] for entry, value in model.state_dict().items()
                      if entry not in state and _of_head(entry, config)})
    return path, state


def located(config: Any, name: str) -> str:
    """Return the local file of weights; it is downloaded into timm's cache if it is missing.

    Raises:
        WeightsError: that is not possible.
    """
    tried = []
    if config.hf_hub_id:
        from huggingface_hub import hf_hub_download

        for file in (config.hf_hub_filename,) if config.hf_hub_filename else FILES:
            try:
                return str(hf_hub_download(config.hf_hub_id, file))
            except Exception as error:  # the hub's client raises errors of several libraries
                tried.append(f"{file}: {type(error).__name__}")
    elif config.url:
        try:
            return str(_downloaded(config.url))
        except OSError as error:
            tried.append(str(error))
    raise WeightsError(
        f"cannot get weights '{config.tag}' of {name!r} from {config.hf_hub_id or config.url} "
        f"({'; '.join(tried)})", "check the network, HF_HUB_OFFLINE and HF_HOME; or use "
        "'--weights random', or '--weights FILE' with a file of your own")


def _downloaded(url: str) -> Path:
    """Return the file of a URL in the cache that timm shares with torch's hub."""
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(url).path).name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return path


def _of_head(entry: str, config: Any) -> bool:
    heads = config.classifier if isinstance(config.classifier, (list, tuple)) else (
        config.classifier,)
    return any(head and entry.startswith(f"{head}.") for head in heads)
