"""The attributes of an option other than its name, type and default."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Tuple

from ipucnn.core.errors import PluginError
from ipucnn.core.options.conversion import builtin

INFERENCE, TRAINING = "inference", "training"
"""The jobs that an option of a backend may be limited to."""

VALIDATION = "validation"
"""The job of evaluating stored checkpoints, which has options of both."""

LOADER, CACHE = "loader", "cache"
"""The roles of options that jobs use: `Option.role`."""

FULL_PRECISION, DEVICE_IMAGES, FIXED_IMAGES = "full-precision", "device-images", "fixed-images"
NO_LABELS, NO_VALIDATION, NOT_DURING = "no-labels", "no-validation", "not-during"
NO_CHECKPOINTS = "no-checkpoints"
STATES = (FULL_PRECISION, DEVICE_IMAGES, FIXED_IMAGES, NO_LABELS, NO_VALIDATION, NOT_DURING,
          NO_CHECKPOINTS)
"""The states of a job in which an option may have no effect (`Option.idle`): it computes in full
precision; its images are made on the device, or not augmented; they have no labels; nothing is
validated, or nothing during training; no checkpoints are written."""

WITHOUT, WITH = "without ", "with "
"""Begin the conditions of `Option.idle` on another option."""

_FLAG = re.compile(r"--?[^\W_][\w-]*")

_FIXED: Mapping[str, str] = {
    "model": "the checkpoint is of another model then",
    "state": "the saved state does not fit another one",
    "start": "it only matters when a training begins"}
"""The reasons why a restored training cannot change an option."""


def _is_condition(one: Any) -> bool:
    """Return whether a condition of `Option.idle` has the right form."""
    if one in STATES or not isinstance(one, str):
        return one in STATES
    words = len(one.split())
    return (one.startswith(WITHOUT) and words >= 2) or (one.startswith(WITH) and words >= 3)


@dataclass(frozen=True)
class Option:
    """The properties of an option other than name, type and default.

    Attributes:
        help: one or two sentences for `--help` and the reference page.
        group: the heading in help; if empty, that of the part or plugin.
        names: further command-line spellings, with their dashes.
        choices: allowed values; a mapping also translates a spelling into its canonical value,
            which is accepted, too, as saved options contain it.
        kind: the registry kind whose names are the allowed values.
        minimum: smallest allowed number.
        exclusive_minimum: the value must be greater than this number.
        maximum: largest allowed number; without one, whole numbers go up to `LARGEST`, sizes to
            `LARGEST_SIZE`, others to `LARGEST_REAL`.
        feature: the feature a backend needs to support it (`BackendSpec.has`).
        only: `inference` or `training` if it does not apply to the other.
        validation: it also applies to the validations of a training, or with `only` inference, to
            those of stored checkpoints.
        fixed: why it cannot be changed when a training is restored: `model` (the checkpoint would
            be of another model), `state` (the saved state would not match), `start` (it only
            matters at the start). Empty if it can.
        role: the purpose of a backend option for jobs: `loader` selects another data loader than
            the threads of `ipucnn`, `cache` names a folder of compiled models.
        needs: name of a common option (``predictions``) without which it has no effect; commands
            that have that option then refuse it.
        former: earlier defaults, which files of options contain; like the default, they are
            accepted if no selected plugin has the option.
        idle: conditions in which it has no effect, for notes to the user: one of `STATES`, or
            ``without NAME`` for another option of its plugin or of the command that is at its
            default, ``without NAME VALUE ...`` for one with none of these values, or ``with NAME
            VALUE ...`` for one with any of them.
        machine: it describes the machine rather than the model, so validation of a checkpoint does
            not inherit it.
        words: strings that are accepted instead of a number.
        size: a number of bytes; K, M, G and T are powers of 1000, Ki, Mi ... of 1024.
        metavar: the placeholder of the value in help. If it contains FILE or DIR, `~` at the
            beginning of the value is the user's home folder.
        switch: it acts on the command line only (`--json`) and is not saved with a run.
        in_profiles: whether profiles may contain the switch, because other options are saved in
            its place.
        negatable: a flag that also has a `--no-` form.
        basic: whether `--help` lists the option; `--help-all` lists all options.
    """

    help: str
    group: str = ""
    names: Tuple[str, ...] = ()
    choices: Mapping[str, Optional[str]] = dataclasses.field(default_factory=dict)
    kind: str = ""
    minimum: Optional[float] = None
    exclusive_minimum: Optional[float] = None
    maximum: Optional[float] = None
    feature: str = ""
    only: str = ""
    validation: bool = False
    fixed: str = ""
    role: str = ""
    needs: str = ""
    former: Tuple[Any, ...] = ()
    idle: Tuple[str, ...] = ()
    machine: bool = False
    words: Tuple[str, ...] = ()
    size: bool = False
    metavar: str = ""
    switch: bool = False
    in_profiles: bool = False
    negatable: bool = True
    basic: bool = False

    def __post_init__(self) -> None:
        if self.only not in ("", INFERENCE, TRAINING):
            raise PluginError(f"an option's 'only' is {self.only!r}, expected 'inference' or "
                              "'training'")
        if self.role not in ("", LOADER, CACHE):
            raise PluginError(f"an option's 'role' is {self.role!r}, expected 'loader' or 'cache'")
        for name in ("help", "group", "metavar", "kind", "feature", "needs"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise PluginError(f"an option's {name!r} is {value!r}, expected text")
        self._check_limits()
        unknown = [one for one in self.idle if not _is_condition(one)]
        if unknown:
            raise PluginError(f"an option's 'idle' has {unknown[0]!r}, expected 'without NAME', "
                              "'with NAME VALUE' or one of " + ", ".join(map(repr, STATES)))
        if self.fixed not in ("", *_FIXED):
            raise PluginError(f"an option's 'fixed' is {self.fixed!r}, expected one of "
                              + ", ".join(map(repr, _FIXED)))
        for name in ("names", "words", "former"):
            value = getattr(self, name)
            if not isinstance(value, (tuple, list)):
                raise PluginError(f"an option's {name!r} is {value!r}, expected a tuple such as "
                                  f"({value!r},)")
            object.__setattr__(self, name, tuple(map(builtin, value)))
        wrong = [name for name in self.names
                 if not isinstance(name, str) or not _FLAG.fullmatch(name)]
        if wrong:
            raise PluginError(f"an option's 'names' has {wrong[0]!r}, expected a flag such as "
                              "'--name'")
        if not all(isinstance(word, str) for word in self.words):
            raise PluginError(f"an option's 'words' is {self.words!r}, expected strings")
        # as arguments are rewritten before they are parsed
        object.__setattr__(self, "names", tuple(name.replace("_", "-") for name in self.names))

    def _check_limits(self) -> None:
        for name in ("minimum", "exclusive_minimum", "maximum"):
            value = getattr(self, name)
            if value is not None and type(value) not in (int, float):
                raise PluginError(f"an option's {name!r} is {value!r}, expected a number")
        if self.maximum is not None and any(least is not None and least > self.maximum
                                            for least in (self.minimum, self.exclusive_minimum)):
            raise PluginError(f"an option's 'maximum' is {self.maximum!r}, which is less than its "
                              "smallest value")

    def applies_to(self, job: str) -> bool:
        """Return whether a job has the option.

        Args:
            job: `inference`, `training`, `validation` (of stored checkpoints), or empty for any.
        """
        if job == VALIDATION and self.validation:
            return True
        return not job or self.only in ("", job)

    @property
    def path(self) -> bool:
        """Whether its value may be a path."""
        return bool(re.search(r"\b(FILE|DIR)\b", self.metavar))

    @property
    def fixed_because(self) -> str:
        """The reason why a restored training cannot change it; empty if it can."""
        return _FIXED.get(self.fixed, "")
