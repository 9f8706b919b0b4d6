"""Settings of the whole process that a plugin must not change, and how to restore them."""

from __future__ import annotations

import contextlib
import functools
import locale
import logging
import operator
import os
import random
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Sequence, Tuple

from ipucnn.core.exit_codes import INTERRUPTED

log = logging.getLogger("ipucnn.plugins")


@contextlib.contextmanager
def unchanged(who: str) -> Iterator[None]:
    """Return a context at whose end changed settings are restored, with a warning.

    Args:
        who: the plugin that is imported in the context, for the warning.
    """
    before = recorded()
    try:
        yield
    finally:
        found = changed(before)
        for setting, value in before:
            if setting in found:
                with contextlib.suppress(Exception):  # for example a folder that was removed
                    setting.restore(value)
        if found:
            log.warning("%s changed %s while it was imported; the change was undone", who,
                        " and ".join(setting.what for setting in found))


@dataclass(frozen=True)
class Setting:
    """A setting of the process."""

    what: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    same: Callable[[Any, Any], bool] = operator.eq


def recorded() -> List[Tuple[Setting, Any]]:
    """Return the settings that a plugin must not change, and their values."""
    return [(setting, value) for setting in _settings() for value in _read(setting)]


def changed(before: Sequence[Tuple[Setting, Any]]) -> List[Setting]:
    """Return the settings that have changed since `recorded` returned them."""
    return [setting for setting, value in before
            for now in _read(setting) if not setting.same(now, value)]


def _read(setting: Setting) -> List[Any]:
    """Return the setting's value in a list, which is empty if it has none."""
    try:
        return [setting.read()]
    except Exception:  # for example a working directory that was removed
        return []


def _settings() -> Iterator[Setting]:
    """Yield the settings to guard."""
    yield Setting("the working directory", os.getcwd, os.chdir)
    yield Setting("the locale", functools.partial(locale.setlocale, locale.LC_ALL),
                  functools.partial(locale.setlocale, locale.LC_ALL))
    yield Setting("the root logger", _logging, _restore_logging)
    yield Setting("the filters of all warnings", lambda: list(warnings.filters), _restore_filters,
                  lambda one, other: _general(one) == _general(other))
    yield from _of_libraries()
    yield from _random_states()
    if threading.current_thread() is threading.main_thread():
        for name in INTERRUPTED:
            if hasattr(signal, name):  # Windows has no SIGHUP
                yield _signal_handler(signal.Signals[name])


def _random_states() -> Iterator[Setting]:
    """Yield the states of random generators; those of libraries where they are imported already."""
    yield Setting("the state of 'random'", random.getstate, random.setstate)
    numpy_random: Any = sys.modules.get("numpy.random")
    if hasattr(numpy_random, "get_state"):
        yield Setting("the state of 'numpy.random'",
                      functools.partial(numpy_random.get_state, legacy=False),
                      numpy_random.set_state, _same_arrays)
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_rng_state") and hasattr(torch, "equal"):
        yield Setting("the random state of torch", torch.get_rng_state, torch.set_rng_state,
                      torch.equal)


def _same_arrays(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_same_arrays(value, other.get(name)) for name, value in one.items())
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)


def _signal_handler(number: signal.Signals) -> Setting:
    return Setting(f"the handler of {number.name}", lambda: signal.getsignal(number),
                   lambda handler: signal.signal(number, handler))


# -- logging and warnings ------------------------------------------------------------------------


def _logging() -> Tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, list(root.handlers), root.manager.disable


def _restore_logging(value: Tuple[Any, ...]) -> None:
    root = logging.getLogger()
    root.level, root.handlers[:] = value[0], value[1]
    logging.disable(value[2])  # also clears the caches of the loggers


def _is_general(entry: Any) -> bool:
    """Return whether a filter is for all warnings of a built-in category, wherever they are from.

    Libraries add filters for their own warnings when they are imported, which are kept.
    """
    _, message, category, module, line = entry
    return message is None and module is None and not line and category.__module__ == "builtins"


def _general(filters: Sequence[Any]) -> List[Any]:
    return [entry for entry in filters if _is_general(entry)]


def _restore_filters(before: List[Any]) -> None:
    added = [entry for entry in warnings.filters if not (_is_general(entry) or entry in before)]
    warnings.resetwarnings()  # has Python forget which warnings are filtered
    warnings.filters[:] = [*added, *before]  # type: ignore[index]


# -- libraries -----------------------------------------------------------------------------------


def _of_libraries() -> Iterator[Setting]:
    """Yield settings of torch and Pillow, which the plugin may be the first to import."""
    yield Setting("the default type of torch",
                  lambda: str(_attribute("torch", "get_default_dtype", _float32)()),
                  lambda name: sys.modules["torch"].set_default_dtype(
                      getattr(sys.modules["torch"], name.partition(".")[2])))
    yield Setting("torch's recording of gradients",
                  lambda: _attribute("torch", "is_grad_enabled", _true)(),
                  lambda value: sys.modules["torch"].set_grad_enabled(value))
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads") and hasattr(torch, "set_num_threads"):
        yield Setting("the threads of torch", torch.get_num_threads, torch.set_num_threads)
    yield Setting("Pillow's reading of truncated images",
                  lambda: _attribute("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", False),
                  lambda value: setattr(sys.modules["PIL.ImageFile"], "LOAD_TRUNCATED_IMAGES",
                                        value))


def _attribute(module: str, name: str, otherwise: Any) -> Any:
    """Return an attribute of a module, or its value in a new process if it is not imported."""
    return getattr(sys.modules.get(module), name, otherwise)


def _float32() -> str:
    return "torch.float32"


def _true() -> bool:
    return True
