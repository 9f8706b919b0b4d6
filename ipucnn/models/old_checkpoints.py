"""Reads the options in checkpoints of the old applications."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Dict, Mapping, Optional, Sequence, Set, Type

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.names import key
from ipucnn.core.options.composition import CommandOptions, common_option, default_of
from ipucnn.core.options.declaration import declared, spellings
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import Registry

OLD_WEIGHTS = "model_state_dict"
"""Key of the weights in such a checkpoint."""

_KINDS = ("model", "norm-layer", "optimizer", "lr-schedule", "loss")
"""The kinds of plugins whose options the old applications had."""

_IMAGENET_FOLDER = "imagenet-data-path"
"""An option that is saved with its default in a training on other data, too."""


def old_options(content: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    """Return the options in a checkpoint of an old application, as saved; None for other files.

    Args:
        content: as `read_checkpoint` returns it.
    """
    options = content.get("opts") or content.get("args")
    old = isinstance(content.get(OLD_WEIGHTS), dict) and isinstance(options, Mapping)
    return options if old else None


def translated_options(options: Mapping[str, Any], options_class: Type[CommandOptions],
                       registry: Registry) -> Dict[str, Any]:
    """Return an old application's options by ipucnn's names, if they exist and are valid.

    Args:
        options: as the old application saved them.
        options_class: options class of the command.
        registry: where plugins are looked up.
    """
    kinds = [kind for kind in options_class.kinds if kind in _KINDS]
    plugins = {spelling: item for owner in builtin_owners(kinds, registry)
               for spelling, item in spellings(owner.options).items()}
    values: Dict[str, Any] = {}
    if _of_release_2_0_to_2_2(options):
        # it replaced the norm layers of every network by torch's usual ones; the epsilon of
        # EfficientNet's own is larger
        values["norm_eps"] = 1e-5
    for spelling, value in options.items():
        found = common_option(options_class, str(spelling)) or plugins.get(key(str(spelling)))
        if found is None or found.option.feature or found.option.switch \
                or found.name.startswith("checkpoint"):
            continue
        if key(str(spelling)) == _IMAGENET_FOLDER and options.get("data") != "imagenet":
            continue
        with suppress(UsageError):
            values[found.name] = found.coerce(value)
    return _of_selected(values, options_class, kinds, registry)


def _of_release_2_0_to_2_2(options: Mapping[str, Any]) -> bool:
    """Return whether the options were saved by a release for SDK 2.0 to 2.2, without `norm-eps`."""
    given = {key(str(spelling)) for spelling in options}
    return "efficientnet-expand-ratio" in given and "norm-eps" not in given


def _of_selected(values: Mapping[str, Any], options_class: type, kinds: Sequence[str],
                 registry: Registry) -> Dict[str, Any]:
    """Return options without those of plugins that are not selected, which had no effect."""
    idle: Set[str] = set()
    used: Set[str] = set()
    for kind in kinds:
        selector = KINDS[kind].selector
        selected = values.get(selector, default_of(options_class, selector))
        with suppress(IpucnnError):  # an unknown name is reported when it is used
            name = registry.get(kind, selected).name
            for owner in builtin_owners([kind], registry):
                names = used if owner.spec.name == name else idle
                names.update(item.name for item in declared(owner.options))
    return {name: value for name, value in values.items()
            if name in used or name not in idle or common_option(options_class, name) is not None}


def number_of_outputs(weights: Mapping[str, Any]) -> Optional[int]:
    """Return the outputs of the linear layer that the weights end with; None without one."""
    shapes = [tuple(getattr(value, "shape", ())) for value in weights.values()][-2:]
    ranks = [len(shape) for shape in shapes]
    return int(shapes[0][0]) if ranks == [2, 1] and shapes[0][0] == shapes[1][0] else None
