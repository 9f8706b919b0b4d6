"""The options that a weights file determines: model, norm layer and number of outputs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import IpucnnError, UnknownNameError, UsageError
from ipucnn.core.files import expanded_path
from ipucnn.core.names import flag_of, key
from ipucnn.core.options.composition import Given
from ipucnn.core.options.declaration import lookup
from ipucnn.core.options.owners import Owner, having, owner_of
from ipucnn.core.options.parts import names_own
from ipucnn.core.registry.kinds import KINDS
from ipucnn.data.remote.stores import is_store

if TYPE_CHECKING:
    from ipucnn.core.registry.registry import Registry
    from ipucnn.models.card import ModelCard

DETERMINED = ("model", "normlayer", "input_image_padding")
"""Common options that a weights file determines unless they are given; also the number of outputs,
which has no default."""


def with_card(sources: Sequence[Dict[str, Any]], others: List[List[Given]], registry: Registry,
              training: bool = False) -> Dict[str, Any]:
    """Return the merged options of several sources, with those that `--weights` determines.

    Of a folder of checkpoints, the best one is used, or else the newest. The options
    of the model and norm layer are added to `others`.

    Args:
        sources: given values by name; later ones override earlier ones.
        others: the remaining given values of each source.
        registry: where names are looked up.
        training: whether a training starts from the weights, which may have other classes.

    Raises:
        UsageError: a given option contradicts the file.
        IpucnnError: the folder has no checkpoint, or the card in the file is damaged.
    """
    given = {name: value for source in sources for name, value in source.items()}
    weights = _file(given.get("weights"))
    if weights is None:
        return given
    place = str(given["weights"])
    if is_store(place):
        from ipucnn.models.store_paths import file_in

        given["weights"] = file_in(place, Path(weights))
    elif expanded_path(place).is_dir():
        given["weights"] = weights
    if given.get("weights_partial") or not expanded_path(weights).is_file():
        return given
    from ipucnn.models.weights_card import file_card, names_in_file  # imports torch

    card = file_card(weights, registry)
    if card is None:
        names = names_in_file(weights, registry)
        if names and not training and given.get("num_classes") is None:
            given["num_classes"] = len(names)
        return given
    settled = _settled(card, training)
    completed = {name: given[name] for name in ("model", "normlayer")
                 if adds_distribution(given.get(name), settled[name])}
    _check_plugins({name: value for name, value in settled.items() if name not in completed},
                   weights, registry)
    settled.update(completed)
    for name, value in settled.items():
        if given.get(name) is not None and not _same(name, given[name], value, registry):
            flag = flag_of(name)
            raise UsageError(f"'{flag} {given[name]}' contradicts the weights in {weights!r}, "
                             f"whose {_WORDS[name]} is {value}",
                             f"leave '{flag}' out, or name other weights")
    owners = _owners(settled, registry)
    replaced = [found for source in others for other in source for found in having(other, owners)]
    own = {name: value for name, value in card.options.items()
           if name not in settled and value is not None
           and not any(found in replaced for found in having(Given(name, None), owners))}
    _check_options(own, card, weights, registry)
    others.append([Given(name, value, f"weights {weights!r}") for name, value in own.items()])
    return {**given, **settled}


def _owners(settled: Mapping[str, Any], registry: Registry) -> List[Owner]:
    """Return the model and norm layer of a file as owners of options, if they can be used."""
    found: List[Owner] = []
    for kind in (KINDS["model"], KINDS["norm-layer"]):
        with suppress(IpucnnError):  # reported where the plugin is selected
            owner = owner_of(kind, registry.get(kind.name, settled[kind.selector]), registry)
            found += [owner] if owner is not None else []
    return found


def _check_plugins(settled: Mapping[str, Any], weights: str, registry: Registry) -> None:
    """Raise an error for an unknown model or norm layer in a file.

    Raises:
        UsageError: names the file, because the user did not name the plugin.
    """
    for kind in (KINDS["model"], KINDS["norm-layer"]):
        name = settled.get(kind.selector)
        if name is None:
            continue
        try:
            registry.get(kind.name, name)
        except UnknownNameError as error:
            raise UsageError(f"the {kind.name} {name!r} of the weights in {weights!r} cannot be "
                             f"used: {error.message}", "install its plugin, or name its file with "
                             f"'--plugin'; {error.hint}") from error


def _check_options(options: Mapping[str, Any], card: ModelCard, weights: str,
                   registry: Registry) -> None:
    """Raise an error for options in a file that its model and norm layer do not have any more.

    Raises:
        UsageError: names the file and the plugins, which may have been upgraded since.
    """
    owners: List[str] = []
    known: List[Optional[type]] = []
    for kind, name in (("model", card.model), ("norm-layer", card.norm_layer)):
        with suppress(IpucnnError):  # reported where the plugin is selected
            spec = registry.get(kind, name)
            known.append(registry.options_class(spec))
            provider = registry.provider_of(spec)
            if not provider.builtin:
                owners.append(f"{kind} {name!r} of {provider.label}")
    gone = [name for name in options
            if not any(one is not None and lookup(one, name.rpartition(".")[2]) for one in known)]
    if not gone or len(known) < 2 or not owners:
        return
    flags = ", ".join(f"'{flag_of(name)}'" for name in gone)
    raise UsageError(
        f"{weights!r} contains the {'option' if len(gone) == 1 else 'options'} {flags}, which "
        f"{' or '.join(owners)} does not have any more",
        "use the version of the plugin with which it was written, or take the weights that fit "
        "with '--weights-partial' and '--model'")


def settled_otherwise(profile: Mapping[str, Any], given: Mapping[str, Any],
                      registry: Registry) -> Tuple[str, ...]:
    """Return the options of a shipped profile that the weights file given beside it contradicts.

    Args:
        profile: values of the profile by name.
        given: the values given beside it.
        registry: where names are looked up.
    """
    if not {"model", "normlayer"} & (profile.keys() - given.keys()):
        return ()
    with suppress(IpucnnError):  # reported where the weights are read
        weights = _file(given.get("weights"))
        if weights is not None:
            from ipucnn.models.weights_card import file_card  # imports torch

            card = file_card(weights, registry)
            if card is not None:
                return tuple(name for name, value in _settled(card, training=True).items()
                             if name in profile and name not in given
                             and not _same(name, profile[name], value, registry))
    return ()


def _file(weights: Any) -> Optional[str]:
    """Return the file of a value of `--weights`; None for random and published weights.

    Raises:
        IpucnnError: the folder has no checkpoint.
    """
    if not isinstance(weights, str) or not names_own(weights):
        return None
    found: str = weights
    if ":" in found:
        from ipucnn.models.weights_source import local_file

        found = str(local_file(found) or found)
    place = expanded_path(found)
    if place.is_dir():
        from ipucnn.models.checkpoint_content import chosen

        return str(chosen(place))
    return found


_WORDS = {"model": "model", "normlayer": "norm layer", "num_classes": "number of outputs",
          "input_image_padding": "padding of the input"}


def _settled(card: ModelCard, training: bool) -> Dict[str, Any]:
    """Return the common options that a card determines, by name."""
    values: Dict[str, Any] = {"model": card.model, "normlayer": card.norm_layer}
    if not training:
        values["num_classes"] = card.num_outputs
    if card.options.get("input_image_padding"):
        values["input_image_padding"] = True
    return values


def adds_distribution(given: Any, saved: Any) -> bool:
    """Return whether a given name of a plugin is that in a file and adds a distribution to it.

    The name alone may be that of a plugin that was not there when the file was written.
    """
    distribution, _, bare = str(given).rpartition(":")
    return bool(distribution) and key(bare) == key(str(saved))


def _same(name: str, given: Any, value: Any, registry: Registry) -> bool:
    kind = next((kind for kind in KINDS.values() if kind.selector == name), None)
    if kind is None:
        return bool(given == value)
    return registry.get(kind.name, given) is registry.get(kind.name, value)
