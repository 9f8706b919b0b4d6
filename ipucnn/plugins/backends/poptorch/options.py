"""The options of the `poptorch` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.attributes import DEVICE_IMAGES, LOADER
from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._ipu.options import IpuOptions

THREADS = "threads"
LOADER_MODES = ("sync", "async", "rebatched")
"""Values of `--dataloader-mode` that select PopTorch's own data loader."""
DEFAULT_REBATCH_SIZE = 1024


@dataclass(frozen=True)
class PopTorchOptions(IpuOptions):
    """Options of the `poptorch` backend.

    Raises:
        UsageError: IO tiles that cannot be reserved, or an option without its data loader mode.
    """

    # threads start at once and need no shared memory: a default for any machine
    dataloader_mode: str = option(
        THREADS, "How images are decoded: by threads of this process, or by worker processes of "
        "PopTorch's data loader in one of its modes, which decode faster than one process.",
        choices=(THREADS, *LOADER_MODES), role=LOADER, validation=True, machine=True,
        idle=DEVICE_IMAGES)
    disable_async_loading: bool = option(
        False, "The same as '--dataloader-mode sync'.", role=LOADER, validation=True,
        machine=True, idle=DEVICE_IMAGES)
    dataloader_rebatch_size: Optional[int] = option(
        None, "Images that a worker decodes at a time in mode 'rebatched', at most those of a host "
        f"call. Default: {DEFAULT_REBATCH_SIZE}.", minimum=1, validation=True, machine=True,
        idle=DEVICE_IMAGES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.disable_async_loading and self.dataloader_mode not in (THREADS, "sync"):
            raise UsageError("'--disable-async-loading' contradicts '--dataloader-mode "
                             f"{self.dataloader_mode}'", "leave one of them out")
        if self.dataloader_rebatch_size is not None and self.dataloader_mode != "rebatched":
            raise UsageError("'--dataloader-rebatch-size' has no effect in data loader mode "
                             f"{self.dataloader_mode!r}",
                             "add '--dataloader-mode rebatched', or leave it out")

    @property
    def loading(self) -> str:
        """The loader's mode, from `--dataloader-mode` and its older spelling."""
        return "sync" if self.disable_async_loading else self.dataloader_mode
