"""Signatures and help texts of the API's functions, generated from the declared options."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.declared_option import Declared
from ipucnn.core.options.owners import builtin_owners, in_words
from ipucnn.core.registry.registry import registry

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

if TYPE_CHECKING:
    PathLike = Union[str, "os.PathLike[str]"]
else:  # Python 3.8 has no parameter there
    PathLike = Union[str, os.PathLike]

_PATH = re.compile(r"\b(FILE|DIR)\b")
_COMMAND_LINE = {
    "json": "a result has 'as_dict()'; result='FILE.json' writes it",
    "poprun": "'ipucnn plan --poprun' prints the command",
    "dashboard": "'callbacks' of 'ipucnn.train' follow a training"}
"""Options that affect the command line only, and their counterparts in Python."""


def takes_options(*options_classes: type, without: Sequence[str] = ()
                  ) -> Callable[[FunctionT], FunctionT]:
    """Set the signature and docstring of a function that takes options as keyword arguments.

    The function's own parameters come first. It must have ``**options``, which remain for the
    options of third-party plugins and for other spellings.

    Args:
        options_classes: the classes that declare the options.
        without: names of options that it does not accept.
    """
    def signed(function: FunctionT) -> FunctionT:
        own = inspect.signature(function)
        parameters = [parameter.replace(annotation=_evaluated(parameter.annotation, function))
                      for parameter in own.parameters.values()
                      if parameter.kind is not parameter.VAR_KEYWORD]
        taken = {parameter.name for parameter in parameters}
        lines: List[str] = []
        for name, item, owners in _options(options_classes):
            if name in taken or name in without:
                continue
            taken.add(name)
            parameters.append(inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=item.default,
                annotation=annotation(item)))
            lines += _help(name, item, owners)
        further = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=Any)
        function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*parameters, further], return_annotation=own.return_annotation)
        function.__doc__ = inspect.cleandoc(function.__doc__ or "") + "\n\nOptions:\n" + "\n".join(
            f"    {line}" for line in lines)
        return function

    return signed


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return the type that a parameter's annotation names in the function's module."""
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def annotation(item: Declared) -> Any:
    """Return the type of an option's values in Python."""
    one: Any = item.type
    if item.type is str and _PATH.search(item.option.metavar):
        one = PathLike
    elif item.option.words or item.option.size:
        one = Union[one, str]
    if item.many:
        one = Union[one, Sequence[one]]
    return Optional[one] if item.nullable else one


def refuse(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return options without those that act on the command line only, which are errors.

    Raises:
        UsageError: one of them is among the options.
    """
    for spelling in options:
        hint = _COMMAND_LINE.get(key(spelling.lstrip("-")))
        if hint:
            raise UsageError(f"option {spelling!r} applies to the command line only", hint)
    return dict(options)


def _options(options_classes: Sequence[type]) -> List[Tuple[str, Declared, str]]:
    """Return name, declaration and owners of the options, those of built-in plugins last."""
    found = [(item.name, item, "") for options_class in options_classes
             for item in common_options(options_class) if item.name not in _COMMAND_LINE]
    for options_class in options_classes:
        by_name: Dict[str, List[Any]] = {}
        for owner in builtin_owners(getattr(options_class, "kinds", ()), registry()):
            for item in declared(owner.options):
                if item.option.applies_to(getattr(options_class, "job", "")):
                    by_name.setdefault(item.name, []).append((owner, item))
        for name, having in by_name.items():
            item = having[0][1]
            if any(other.default != item.default for _, other in having) \
                    or getattr(options_class, "defers", False):
                item = Declared(name, None, item.option, item.type, item.many, True)
            found.append((name, item, in_words([owner for owner, _ in having])))
    return found


def _help(name: str, item: Declared, owners: str) -> List[str]:
    rule = item.option
    text = rule.help
    if rule.choices:
        text += " Values: " + ", ".join(rule.choices) + "."
    if owners:
        text += f" An option of {owners}."
    return textwrap.wrap(f"{name}: {text}", 92, subsequent_indent="    ",
                         break_on_hyphens=False)
