"""Compiles models with torch.compile, with a persistent cache."""

from __future__ import annotations

import os
import shutil
from typing import Any, Callable, Optional

import torch
from torch.torch_version import TorchVersion

from ipucnn.core.errors import IpucnnError, UnavailableError
from ipucnn.core.files import trusted_folder
from ipucnn.plugins.backends.torch.errors import out_of_memory


def check() -> None:
    """Raise `UnavailableError` if torch.compile cannot be used here."""
    # torch 2.0 compiles too, but ignores module hooks
    if TorchVersion(torch.__version__) < "2.1":
        raise UnavailableError(f"torch {torch.__version__} cannot compile these models",
                               "leave '--compile' out; torch 2.1 and newer can")
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise UnavailableError("no C++ compiler was found for '--compile'",
                               "install g++ (Debian: 'apt-get install g++') or leave it out")


def compiled(model: torch.nn.Module, cache: Optional[str],
             graphs: bool = False, freezing: bool = True) -> Callable[..., Any]:
    """Return `model` compiled for fixed shapes.

    Args:
        model: in eval mode.
        cache: folder for the compiled code, if given.
        graphs: whether to record its kernels as a CUDA graph. A call then overwrites the result of
            the previous one.
        freezing: whether its weights become constants, laid out once for the kernels.

    Raises:
        UsageError: the cache folder cannot be created, or is open to others.
    """
    # inductor reads the folder and the switches when it first compiles, which is after this
    if cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = trusted_folder(cache, "--model-cache-path")
    import torch._inductor.config as inductor

    inductor.freezing = freezing
    if hasattr(inductor, "fx_graph_cache"):
        inductor.fx_graph_cache = True
    return torch.compile(model, dynamic=False, mode="reduce-overhead" if graphs else None)


def compiled_for_training(model: torch.nn.Module) -> Callable[..., Any]:
    """Return `model` compiled for fixed shapes, without freezing its weights."""
    return torch.compile(model, dynamic=False)


def first_call(call: Callable[[], Any]) -> None:
    """Execute the call that compiles; report a compiler error in one line."""
    try:
        call()
    except (IpucnnError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise IpucnnError(f"the model cannot be compiled here: {lines[0] if lines else error!r}",
                          "leave '--compile' out") from error
