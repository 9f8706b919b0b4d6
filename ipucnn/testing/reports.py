"""`ipucnn check-plugin`: the suites on several plugins, and their results as a table."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from ipucnn.core.errors import UnknownNameError, UsageError
from ipucnn.core.names import key
from ipucnn.core.options.declaration import spellings
from ipucnn.core.registry import registry as registries
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.discovery import LOCAL
from ipucnn.core.registry.kinds import KINDS, kind_named
from ipucnn.core.registry.listing import kinds_of
from ipucnn.core.registry.registry import Registry
from ipucnn.core.showing import plain_table
from ipucnn.testing.checking import SUITES, check_plugin, check_row, title_of
from ipucnn.testing.importing import ImportSuite, import_checks
from ipucnn.testing.suite import checks

Results = Dict[str, Dict[str, str]]
"""The result of each check of each plugin, by ``kind/name``."""

STATUSES = ("passed", "failed", "excluded", "skipped")


@dataclass(frozen=True)
class Wishes:
    """How plugins are checked.

    Attributes:
        data_dir: a folder for datasets that need one.
        options: values of the plugins' own options.
        exclude: reasons by the name of a check that is not run.
    """

    data_dir: Optional[str] = None
    options: Mapping[str, Any] = field(default_factory=dict)
    exclude: Mapping[str, str] = field(default_factory=dict)


def status_of(result: str) -> Tuple[str, str]:
    """Return one of `STATUSES` and the reason that a result of a check states."""
    if result == "passed":
        return "passed", ""
    for status, start in (("excluded", "skipped: excluded: "), ("skipped", "skipped: ")):
        if result.startswith(start):
            return status, result[len(start):]
    return "failed", result


def failures(results: Results) -> List[Tuple[str, str, str]]:
    """Return plugin, check and reason of each check that failed."""
    return [(plugin, check, reason) for plugin, found in results.items()
            for check, result in found.items()
            for status, reason in [status_of(result)] if status == "failed"]


def shown(results: Results) -> str:
    """Return the results as text: how many checks of each plugin passed, and the others."""
    counts, others = [], []
    for plugin, found in results.items():
        outcomes = [(check, *status_of(result)) for check, result in found.items()]
        counts.append((plugin, *(str(sum(status == wanted for _, status, _ in outcomes))
                                 for wanted in STATUSES)))
        others += [(status, plugin, check, reason) for check, status, reason in outcomes
                   if status != "passed"]
    others.sort(key=lambda row: STATUSES.index(row[0]))
    tables = [plain_table(("plugin", *STATUSES), counts)]
    if others:
        tables.append(plain_table(("result", "plugin", "check", "reason"), others))
    return "\n\n".join(tables)


def check_all(names: List[str], wishes: Wishes, registry: Optional[Registry] = None) -> Results:
    """Check distributions, plugins and files.

    Args:
        names: a distribution, a plugin (``tinynet``, ``model:tinynet``) or a file.
        wishes: how.
        registry: where they are looked up; that of the process when None.

    Raises:
        UsageError: an unknown name, option or check.
    """
    used = registry or registries.registry()
    files = tuple(name for name in names if _is_file(name))
    for name in files:
        if not os.path.isfile(name):
            raise UsageError(f"there is no file {name!r}", "name a Python file, a distribution or "
                             "a plugin")
    if files:
        used = Registry(replace(used.settings, extra=(*used.settings.extra, *files)))
    _check_exclusions(wishes)
    results: Results = {}
    unused = set(wishes.options)
    before = registries.registry() if files else None
    registries.use(used)  # what a check starts looks plugins up in that of the process
    try:
        for name in names:
            _check_one(name, wishes, used, results, unused)
    finally:
        if files:
            registries.use(before)
    if unused:
        raise UsageError(f"none of the plugins has an option {sorted(unused)[0]!r}",
                         "'ipucnn show NAME' lists the options of a plugin")
    return results


def _is_file(name: str) -> bool:
    """Return whether a file is meant; names of plugins may have a namespace (``timm/resnet50``)."""
    return name.endswith(".py") or os.path.isabs(name) or name.startswith(".") or (
        os.sep in name and os.path.exists(name))


def _check_exclusions(wishes: Wishes) -> None:
    known = {check for suite in (*SUITES.values(), ImportSuite) for check in checks(suite)}
    for name in wishes.exclude:
        if name not in known:
            raise UsageError(f"no suite has a check {name!r}",
                             "checks are listed in the results of 'ipucnn check-plugin'")


def _check_one(name: str, wishes: Wishes, used: Registry, results: Results,
               unused: Set[str]) -> None:
    """Add the results of one name."""
    kind, colon, bare = name.partition(":")
    if colon and not _is_file(name):
        spec = used.get(kind, bare)
        results[f"{kind_named(kind).name}/{used.name_of(spec)}"] = _checked(
            kind_named(kind).name, bare, spec, wishes, used, unused)
        return
    all_rows = used.rows()
    rows = [row for row in all_rows
            if row.provider.answers_to(name) or (
                row.provider.entry_point == LOCAL and row.provider.value == name)]
    if not rows:
        kinds = [] if _is_file(name) else kinds_of(name)
        if not kinds:
            raise UnknownNameError(f"there is no plugin, distribution or file {name!r}",
                                   "'ipucnn list-plugins' lists the plugins")
        for kind in kinds:
            _check_one(f"{kind}:{name}", wishes, used, results, unused)
        return
    own = {} if any(row.provider.builtin for row in rows) else _excluding(wishes, ImportSuite)
    results[f"import/{name}"] = import_checks(name, used, exclude=own)
    for row in rows:
        results[title_of(row, all_rows, used)] = check_row(
            row, partial(_checked, wishes=wishes, used=used, unused=unused))


def _excluding(wishes: Wishes, suite: Any) -> Dict[str, str]:
    return {check: reason for check, reason in wishes.exclude.items() if check in checks(suite)}


def _checked(kind: str, name: str, spec: PluginSpec, wishes: Wishes, used: Registry,
             unused: Set[str]) -> Dict[str, str]:
    """Return the results of one record, with those of the wishes that concern it."""
    suite = SUITES[kind]
    settings: Dict[str, Any] = {"exclude": {**suite.exclude, **_excluding(wishes, suite)}}
    if KINDS[kind].name == "dataset" and wishes.data_dir is not None:
        settings["data_dir"] = wishes.data_dir
    try:
        declared = used.options_class(spec)
    except UsageError:  # the suite reports it
        declared = None
    known = set(spellings(declared)) if declared is not None else set()
    own = {option: value for option, value in wishes.options.items() if key(option) in known}
    unused -= set(own)
    if own:
        settings["options"] = own
    return check_plugin(kind, name, used, **settings)
