"""Declares options as dataclass fields: the single source of flags, checks and reference.

Options are fields of frozen dataclasses created by `option`: the parts that commands are composed
of, and the classes that plugins declare. The command line, the YAML profiles, validation, the
options saved with a result and the reference page are derived from these declarations. Field
annotations are evaluated at run time, so they use Python 3.8 syntax.
"""

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple, TypeVar, Union

from ipucnn.core.errors import PluginError
from ipucnn.core.names import did_you_mean, flag_of, key
from ipucnn.core.options.conversion import as_choices, builtin, canonical, coerced

ResultT = TypeVar("ResultT")


def once_per_class(function: Callable[[Any], ResultT]) -> Callable[[Any], ResultT]:
    """Cache the results of a function of a class: declarations are read once per process."""
    return functools.lru_cache(maxsize=None)(function)


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

_UNIONS = (Union, getattr(types, "UnionType", Union))
"""The origins of ``Optional[int]`` and, from Python 3.10, of ``int | None``."""

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

    def check_field(self, options_class: type, name: str) -> None:
        """Check the type and the default of a field that was created with this option.

        Raises:
            PluginError: the type is not supported, or the default is not of it.
            UsageError: the default is not an allowed value.
        """
        item = next(item for item in declared(options_class) if item.name == name)
        value = item.coerce(item.default)
        if value != item.default and type(value) is not type(item.default):
            raise PluginError(f"the default of option '{item.flag}', {item.default!r}, is not of "
                              "its type")

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


def option(default: Any, help: str, **details: Any) -> Any:
    """Declare an option as a field of a frozen dataclass.

    The field's annotation is its type: `bool`, `int`, `float`, `str`, `Optional` of these, or
    ``Tuple[T, ...]`` for several values. ::

        @dataclass(frozen=True)
        class LionOptions:
            beta2: float = ipucnn.option(0.99, "Decay of the momentum.", minimum=0.0, maximum=1.0)

    Args:
        default: the default value; a member of an enum stands for its value.
        help: one or two sentences.
        **details: the other attributes of `Option` (`names`, `choices`, `minimum` ...).

    Raises:
        PluginError: an unknown attribute, or one with a wrong value.
    """
    choices = as_choices(details.pop("choices", {}))
    if isinstance(details.get("idle"), str):
        details["idle"] = (details["idle"],)
    known = [field.name for field in dataclasses.fields(Option)]
    unknown = sorted(set(details) - set(known))
    if unknown:
        raise PluginError(f"an option has no attribute {unknown[0]!r}",
                          did_you_mean(unknown[0], known) or "attributes: " + ", ".join(known))
    declaration = Option(help=help, choices=choices, **details)
    return dataclasses.field(default=canonical(default, choices, declaration.path),
                             metadata={"option": declaration})


@dataclass(frozen=True)
class Declared:
    """One declared option of one command: the field and its type."""

    name: str
    default: Any
    option: Option
    type: type
    many: bool
    nullable: bool

    @property
    def flag(self) -> str:
        """Its canonical command-line spelling."""
        return flag_of(self.name)

    @property
    def flags(self) -> Tuple[str, ...]:
        """Every command-line spelling, the canonical one first."""
        return (self.flag, *self.option.names)

    @property
    def boolean(self) -> bool:
        """Whether it is a `--flag/--no-flag` pair; a list of booleans has values."""
        return self.type is bool and not self.many

    def coerce(self, value: Any, origin: str = "") -> Any:
        """Return `value` in the option's type.

        Args:
            value: a value from the command line, a profile, a saved result or Python, where it
                may be a path or a numpy number.
            origin: its source, for the message ("profile.yaml, line 3").

        Raises:
            UsageError: it is not of the type, not one of the choices or out of range.
        """
        return coerced(self, value, f" ({origin})" if origin else "")


@once_per_class
def declared(options_class: type) -> Tuple[Declared, ...]:
    """Return the options that a dataclass declares, in order; read once per process.

    Raises:
        PluginError: a field has no default, was not created by `option`, or has an unsupported
            type.
    """
    hints = typing.get_type_hints(options_class)
    return tuple(_declared(options_class, field, hints[field.name])
                 for field in dataclasses.fields(options_class))


@once_per_class
def spellings(options_class: type) -> Mapping[str, Declared]:
    """Return the options of a dataclass by every spelling, normalised by `key`."""
    return {key(flag.lstrip("-")): item
            for item in reversed(declared(options_class)) for flag in reversed(item.flags)}


def lookup(options_class: type, spelling: str) -> Optional[Declared]:
    """Return an option by `spelling`, current or old, with or without dashes."""
    return spellings(options_class).get(key(spelling.lstrip("-")))


def _declared(owner: type, field: "dataclasses.Field[Any]", hint: Any) -> Declared:
    where = f"field {field.name!r} of {owner.__name__}"
    if "option" not in field.metadata:
        raise PluginError(f"{where} is not declared with 'ipucnn.option'")
    arguments = typing.get_args(hint)
    nullable = typing.get_origin(hint) in _UNIONS and type(None) in arguments
    if nullable and len(arguments) == 2:
        hint = next(a for a in arguments if a is not type(None))
    many = typing.get_origin(hint) is tuple
    items = typing.get_args(hint) if many else (hint, ...)
    item_type = items[0] if len(items) == 2 and items[1] is ... else hint
    if item_type not in (bool, int, float, str):
        raise PluginError(f"{where} is of type {item_type!r}, expected bool, int, float or str, "
                          "Optional of one, or Tuple[T, ...]")
    if None in field.metadata["option"].choices.values() and (many or not nullable):
        raise PluginError(f"{where} has a choice that means None, expected Optional of one value")
    return Declared(field.name, field.default, field.metadata["option"], item_type, many, nullable)
