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


class Returned:
    """A member as a property returns it: pybind11 makes a new object, which equals the member."""

    def __init__(self, member):
        self._member = member

    def __getattr__(self, name):
        return getattr(self._member, name)

    def __eq__(self, other):
        return self._member is getattr(other, "_member", other)

    def __hash__(self):
        return hash(self._member)

    def __repr__(self):
        return repr(self._member)
