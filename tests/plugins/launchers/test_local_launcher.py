"""The `local` launcher, which recognises the children of `--instances`.

`tests/commands/test_bulk.py` starts real processes.
"""

from __future__ import annotations

import pytest

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE
from ipucnn.core.execution.launcher import Launch
from ipucnn.core.execution.launching import environment_of, launched
from ipucnn.plugins.launchers.local import LocalLauncher


def test_a_child_finds_its_place():
    variables = environment_of("local", 2, 4)
    assert variables == {"IPUCNN_INSTANCE_INDEX": "2", "IPUCNN_INSTANCE_COUNT": "4",
                         "IPUCNN_LAUNCHER": "local"}
    assert launched(variables) == Launch(2, 4, None, "local")


def test_variables_that_the_parent_inherited_do_not_hide_it():
    inherited = {"POPDIST_NUM_TOTAL_REPLICAS": "1", "IPUCNN_LAUNCHER": "poprun"}
    assert launched({**inherited, **environment_of("local", 0, 2)}) == Launch(0, 2, None, "local")


@pytest.mark.parametrize("variables", [
    {"IPUCNN_INSTANCE_INDEX": "0"}, {"IPUCNN_INSTANCE_COUNT": "2"},
    {"IPUCNN_INSTANCE_INDEX": "-1", "IPUCNN_INSTANCE_COUNT": "2"},
    {"IPUCNN_INSTANCE_INDEX": "2", "IPUCNN_INSTANCE_COUNT": "2"}])
def test_a_broken_environment_is_an_error(variables):
    with pytest.raises(UsageError, match=r"environment variable|describes instance 2") as caught:
        launched(variables)
    assert caught.value.hint


def test_only_the_parent_connects_several(monkeypatch):
    launcher = LocalLauncher()
    assert launcher.join() is ALONE
    for name, value in launcher.environment(0, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnavailableError, match="not connected to the other 1 instances"):
        launcher.join()
