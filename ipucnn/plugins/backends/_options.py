"""Option classes from which several backends inherit."""

from dataclasses import dataclass
from typing import Optional, Sequence

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import CACHE
from ipucnn.core.options.declaration import option


@dataclass(frozen=True)
class DeviceOptions:
    """Options of the device."""

    device: Optional[str] = option(
        None, "Device to compute on, such as 'cpu', 'cuda' or 'cuda:1'. Default: the best one "
        "available.", validation=True)


@dataclass(frozen=True)
class CacheOptions:
    """Options of the cache of compiled models."""

    model_cache_path: Optional[str] = option(
        None, "Folder in which compiled models are cached for later runs.", metavar="DIR",
        validation=True, role=CACHE)


@dataclass(frozen=True)
class CallOptions:
    """Options of the calls of an engine in inference."""

    images_per_call: Optional[int] = option(
        None, "Number of images that the engine computes at a time: a divisor of the micro-batch, "
        "or more for all of it. Activations of few images fit into the caches of a processor "
        "(default: the result of '--tune', or a few images per thread on a CPU, and the "
        "micro-batch on other devices).",
        minimum=1, only="inference", validation=True)


@dataclass(frozen=True)
class ThreadOptions:
    """Options of the threads of an engine."""

    threads: Optional[int] = option(
        None, "Number of threads that compute on a CPU (default: the result of '--tune', or one "
        "for each physical core, or OMP_NUM_THREADS).", minimum=1, only="inference",
        validation=True)


@dataclass(frozen=True)
class RequestOptions:
    """Options of concurrent calls of an engine."""

    requests: Optional[int] = option(
        None, "Number of calls in flight, which share the cores. More calls usually increase the "
        "throughput; 1 gives the lowest latency. Default: the result of '--tune', or else 1 with "
        "'onnxruntime', the number of threads with 'ncnn', and with 'openvino' twice the number "
        "of calls that it computes at a time.",
        minimum=1, maximum=1024, names=("--num-requests",), only="inference",
        validation=True)


def check_proportions(proportions: Sequence[float], stages: int) -> None:
    """Check that there is one available-memory proportion, or one for each pipeline stage.

    Args:
        proportions: the values of `--available-memory-proportion`; may be empty.
        stages: number of pipeline stages.

    Raises:
        UsageError: there is another number of them.
    """
    if len(proportions) > 1 and len(proportions) != stages:
        raise UsageError(
            f"{len(proportions)} available memory proportions for {stages} pipeline stages",
            "give one for all stages, or one for each")
