"""Hints for plugin files that import what they cannot find."""

import pytest

from ipucnn.core.errors import PluginError
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry

HOOK = """
@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="puma", summary="s", target={}, options={})]
"""


def failed(path):
    """Return the error for the model of a file."""
    registry = Registry(PluginSettings(extra=(str(path),), disable_all=True))
    with pytest.raises(PluginError) as caught:
        registry.make(registry.get("model", "puma"))
    return caught.value


@pytest.mark.parametrize("named", [('"cats:build"', None), ("print", '"cats:Options"')])
def test_a_file_cannot_name_itself(tmp_path, named):
    path = tmp_path / "cats.py"
    path.write_text("import ipucnn\n" + HOOK.format(*named))
    error = failed(path)
    assert "No module named 'cats'" in error.message
    assert error.hint == ("refer to its own functions and classes directly instead of by text "
                          f"(target=build), or leave out '--plugin {path}'")


def test_modules_beside_a_file_need_its_folder(tmp_path):
    path = tmp_path / "cats.py"
    path.write_text("import ipucnn\nimport lynx_beside\n" + HOOK.format("print", None))
    assert failed(path).hint == f"fix it, or leave out '--plugin {path}'"
    (tmp_path / "lynx_beside.py").touch()
    assert failed(path).hint == (f"add its folder to PYTHONPATH ('PYTHONPATH={tmp_path}'), or "
                                 f"leave out '--plugin {path}'")


def test_a_folder_is_no_file(tmp_path):
    assert failed(f"{tmp_path}/").message.endswith(": it is a folder, not a Python file")
