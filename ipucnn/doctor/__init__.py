"""`ipucnn doctor`: check the installation and suggest fixes.

`job` has the checks, `deep` those that load and test the engines. The package can be called:
`ipucnn.doctor()` is its name in Python, too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipucnn.doctor.report import Report


class _Function(ModuleType):
    """A package that can be called."""

    def __call__(self, deep: bool = False) -> Report:
        """Check this installation and machine: `ipucnn doctor` in Python.

        Args:
            deep: also import and test torch and the engines.

        Returns:
            The checks; `ok` is true if none found a problem.
        """
        from ipucnn.doctor.job import examine

        return examine(deep)


sys.modules[__name__].__class__ = _Function
