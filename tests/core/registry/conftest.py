"""Fixtures of the registry's tests."""

import pytest


@pytest.fixture
def install(fake_distribution):
    """Install a one-module distribution: `install('dist', source)`."""

    def install(name, source, entry_point="models.tiny", version="1.0"):
        module = name.replace("-", "_") + "_plugin"
        return fake_distribution(name, {module + ".py": source}, {entry_point: module}, version)

    return install
