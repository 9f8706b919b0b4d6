"""What the tests of commands share."""

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use


@pytest.fixture
def plan(capsys, monkeypatch):
    """Run `ipucnn plan`, and return its exit code and what it printed."""
    monkeypatch.delenv("IPUCNN_PLUGIN", raising=False)

    def run(*argv: str):
        code = invoke(["plan", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def _own_registry():
    """Forget the plugins that the commands of a test have named."""
    yield
    use(None)


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Work in a new folder."""
    monkeypatch.chdir(tmp_path)
