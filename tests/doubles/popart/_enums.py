"""Every enumeration of the contract, with its members and numbers."""

import enum

from popart._contract import CONTRACT

_OTHER_NAMES = {"Off": "None", "NoRecompute": "None", "NoReduction": "None", "Forward": "Fwd",
                "Backward": "Bwd"}
"""C++ names of members that Python could not, or does not, call the same."""


def _made(name, entry):
    numbers = entry.get("cpp_numbers", {})
    members = {member: numbers.get(member, numbers.get(_OTHER_NAMES.get(member), place))
               for place, member in enumerate(entry["values"])}
    return enum.Enum(name, members)


ENUMS = {name.split(".")[1]: _made(name.split(".")[1], entry)
         for name, entry in CONTRACT["enums"].items()}
globals().update(ENUMS)
