"""The options of the `popart` backend."""

from dataclasses import dataclass

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._ipu.options import IpuOptions


@dataclass(frozen=True)
class PopArtOptions(IpuOptions):
    """Options of the `popart` backend."""

    ipu_model: bool = option(
        False, "Emulate the IPU instead of using hardware.", names=("--simulation",),
        validation=True)
    report_hw_cycle_count: bool = option(
        False, "Report the clock cycles of the device per host call.", only="inference")
