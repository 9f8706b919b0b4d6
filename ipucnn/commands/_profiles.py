"""Options of a command from its arguments and the profile of `--config`."""

import os
from typing import Any, Dict, Type, TypeVar

from ipucnn.core.errors import UsageError

OptionsT = TypeVar("OptionsT")


def resolved(options_class: Type[OptionsT], given: Dict[str, Any], command: str) -> OptionsT:
    """Return the options of a command; see `core.options.profiles.resolve`.

    Raises:
        UsageError: an unknown profile or option, or a value that is not allowed; the hint names the
            command of a file that contains the options of another one.
    """
    from ipucnn.core.options.profiles import command_of, resolve

    try:
        return resolve(options_class, given, command)
    except UsageError as error:
        from ipucnn.commands.config import PROFILED

        name = given.get("config")
        kinds = {command: options_class, **PROFILED}
        if type(error) is not UsageError or not name \
                or f"({os.path.basename(name)}, line" not in error.message:
            raise  # not an error in the profile
        found = command_of(name, kinds)
        if found == command:
            raise
        place = "plan --launch" if found == "launch" else found
        raise UsageError(error.message,
                         f"most options in '{name}' are those of 'ipucnn {place}'") from error
