"""Numbers of threads and cores for tests of backends."""

from __future__ import annotations

import pytest

from ipucnn.plugins.backends import _calls, _threads


@pytest.fixture
def threads(monkeypatch):
    """Set the number of physical cores, and that of logical CPUs if it is greater."""
    def set_(cores, logical=None):
        for module in (_calls, _threads):
            monkeypatch.setattr(module, "compute_threads", lambda: cores)
        for name in ("thread_count", "usable_cores"):
            monkeypatch.setattr(_threads, name, lambda: logical or cores)
        monkeypatch.setattr(_threads, "physical_cores", lambda: cores)
    return set_
