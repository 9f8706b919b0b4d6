"""Third parties' plugins with options of their own, as source text."""

HEAD = '''
from dataclasses import dataclass
from typing import List, Optional, Tuple
import ipucnn

def build(*arguments, options=None, **keywords):
    return options
'''

LION = HEAD + '''
@dataclass(frozen=True)
class LionOptions:
    """Options of Lion."""

    beta2: float = ipucnn.option(0.99, "Decay of the momentum.", minimum=0.0, maximum=1.0)
    sharpness: int = ipucnn.option(3, "How sharp.", minimum=1, names=("--edge",))
    shared: int = ipucnn.option(1, "Also an option of the waves.")
    marks: Tuple[str, ...] = ipucnn.option((), "Which.", choices=("a", "b"))

    def __post_init__(self):
        if self.sharpness > 10:
            raise ipucnn.IpucnnError("too sharp")

@dataclass(frozen=True)
class WaveOptions:
    """Options of waves."""

    shared: int = ipucnn.option(1, "Also an option of the lion.")
    length: Optional[float] = ipucnn.option(None, "Of a wave.", exclusive_minimum=0.0)

@dataclass(frozen=True)
class AbacusOptions:
    """Options of the abacus."""

    beads: int = ipucnn.option(10, "How many.", minimum=1, only="inference")

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="lion", summary="s", target=build, options=LionOptions)]

@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="waves", summary="s", target=build, options=WaveOptions)]

@ipucnn.hookimpl
def ipucnn_backends():
    return [ipucnn.BackendSpec(name="abacus", summary="s", target=build, options=AbacusOptions,
                               training=True, precisions=("16.16", "32.32"))]
'''

LOGGERS = HEAD + '''
@dataclass(frozen=True)
class CloudOptions:
    project: str = ipucnn.option("", "Where to.")
    tags: Tuple[str, ...] = ipucnn.option((), "Which.")
    parts: Tuple[bool, ...] = ipucnn.option((), "Which of them.")

@dataclass(frozen=True)
class PaperOptions:
    project: str = ipucnn.option("", "Where to.")

@ipucnn.hookimpl
def ipucnn_loggers():
    return [ipucnn.LoggerSpec(name="sky/cloud", summary="s", target=build, options=CloudOptions),
            ipucnn.LoggerSpec(name="paper", summary="s", target=build, options=PaperOptions)]
'''

BROKEN = HEAD + '''
@dataclass
class Mutable:
    width: int = ipucnn.option(1, "w")

@dataclass(frozen=True)
class Plain:
    width: int = 3

@dataclass(frozen=True)
class Listed:
    width: List[int] = ipucnn.option((), "w")

@dataclass(frozen=True)
class Refusing:
    width: int = ipucnn.option(1, "w")

    def __post_init__(self):
        raise ValueError("never right")

@dataclass(frozen=True)
class Common:
    batch_size: int = ipucnn.option(1, "b")

@dataclass(frozen=True)
class CommonSpelling:
    rate: float = ipucnn.option(1.0, "r", names=("--learning-rate",))

@dataclass(frozen=True)
class Good:
    width: int = ipucnn.option(1, "w")

NAMES = ("Mutable", "Plain", "Listed", "Refusing", "Common", "CommonSpelling", "Good", "Missing")

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [*(ipucnn.OptimizerSpec(name=name.lower(), summary="s", target=build,
                                   options="broken_options:" + name) for name in NAMES),
            ipucnn.OptimizerSpec(name="nowhere", summary="s", target=build,
                                 options="no_such_module_anywhere:Options")]
'''
