"""The options of `ipucnn data bench`."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Set, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import as_dict, changed, declared, option
from ipucnn.core.options.shared import DataOptions, ResultOptions

_COMPUTING = ("device", "precision", "compute_batch_size")
_PRECISIONS = {"half": "16.16", "full": "32.32", "16.16": "16.16", "16.32": "16.32",
               "32.32": "32.32"}


@dataclass(frozen=True)
class BenchOptions(ResultOptions, DataOptions):
    """Options of `ipucnn data bench`; the defaults are those of the old host benchmark.

    Raises:
        UsageError: two options contradict each other, or one has no meaning without another.
    """

    data: str = option("imagenet", "Dataset.", group="Data", kind="dataset")
    job: str = option(
        "train", "What images are prepared for: the random crops of a training, or what inference "
        "and validation take.", group="Data", choices=("train", "inference"))
    batch_size: int = option(1024, "Images per batch.", group="Data", minimum=1,
                             names=("--micro-batch-size",))
    input_size: Optional[int] = option(
        None, "Height and width of the prepared images in pixels; those of '--model', or 224, "
        "when not given.", group="Data", minimum=8)
    dataloader_worker: Tuple[int, ...] = option(  # type: ignore[assignment]
        (), "Numbers of workers to measure; 1 and the cores this process may use when not given.",
        group="Data", minimum=1, names=("--num-workers",), metavar="N...")
    disable_async_loading: bool = option(
        False, "The same as '--dataloader-mode sync'.", group="Data")

    iterations: int = option(
        2, "How often every number of workers goes through the images; the median counts.",
        group="Measurement", minimum=1)
    samples: int = option(
        4096, "Images to go through, at most those of the dataset: the first ones of an epoch.",
        group="Measurement", minimum=1)

    model: Optional[str] = option(
        None, "Also measure how fast this model computes, and what share of its time it would wait "
        "for images.", group="Model", kind="model", names=("--model-name",))
    backend: str = option("auto", "Execution engine of '--model'.", group="Model", kind="backend")
    device: Optional[str] = option(None, "Device of the backend.", group="Model")
    precision: Optional[str] = option(
        None, "Floating point of '--model': half (16.16), half with single precision weights "
        "(16.32, training), or full (32.32).", group="Model", choices=_PRECISIONS)
    compute_batch_size: Optional[int] = option(
        None, "Micro-batch of '--model'; 16 when not given.", group="Model", minimum=1)
    ipu_model: bool = option(False, "Simulate the IPU instead of using one.", group="Model",
                             names=("--simulation",))

    def __post_init__(self) -> None:
        if self.disable_async_loading and self.dataloader_mode not in ("threads", "sync"):
            raise UsageError(
                f"'--disable-async-loading' contradicts '--dataloader-mode {self.dataloader_mode}'",
                "leave one of them out")
        if self.dataloader_rebatch_size is not None and self.mode != "rebatched":
            raise UsageError("'--dataloader-rebatch-size' has no meaning in data loader mode "
                             f"{self.mode!r}", "add '--dataloader-mode rebatched', or leave it out")
        if self.model:
            return
        alone = _COMPUTING if self.mode != "threads" else (*_COMPUTING, "backend", "ipu_model")
        for item in changed(self):
            if item.name in alone:
                raise UsageError(f"'{item.flag}' is for the computing of a model, and none is "
                                 "named", "add '--model NAME', or leave it out")

    @property
    def mode(self) -> str:
        """What `--dataloader-mode` and `--disable-async-loading` mean together."""
        return "sync" if self.disable_async_loading else self.dataloader_mode

    @property
    def feeding(self) -> Dict[str, Any]:
        """What `ipucnn run` would be told to take the same images in the same form."""
        mode = {} if self.mode == "threads" else {
            "dataloader_mode": self.mode, "backend": self.backend, "ipu_model": self.ipu_model}
        names = {item.name for item in declared(DataOptions)} - {
            "dataloader_worker", "dataloader_mode"}
        return {**self._given(names), **mode, "data": self.data, "input_size": self.input_size,
                "batch_size": self.batch_size, "weights": "random"}

    @property
    def computing(self) -> Dict[str, Any]:
        """What a run or a training of the model would be told."""
        return {**self._given({"backend", "device", "precision", "ipu_model", "input_size", "seed",
                               "normalization_location", "eight_bit_io"}), "model": self.model}

    def _given(self, names: Set[str]) -> Dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in changed(self)
                if item.name in names}

    def as_dict(self) -> Dict[str, Any]:
        """Return the settings as plain types."""
        return as_dict(self)
