"""The tutorial: its files are written, installed and used by its own commands."""

import re
import shlex
from pathlib import Path

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.registry import registry as registries

TEXT = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
FILES = dict(re.findall(r"as `([\w/.]+)`[^`]*?\n\n```\w+\n(.*?)```", TEXT, re.DOTALL))


def commands(section):
    """Return the command lines of a section."""
    part = TEXT[TEXT.index(f"\n## {section}."):].split("\n## ")[1]
    blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registries.use(None)


def test_the_package_is_complete():
    listed = re.search(r"ipucnn-plainnet/\n(.*?)```", TEXT, re.DOTALL).group(1).split()
    assert set(FILES) == {"plainnet.py", *listed} - {"README.md", "src/plainnet/__init__.py"}
    for name, code in FILES.items():
        if name.endswith(".py"):
            compile(code, name, "exec")


def test_every_step_works(folder, fake_distribution, monkeypatch, capsys):
    (folder / "plainnet.py").write_text(FILES["plainnet.py"])
    for words in commands(1):
        assert invoke(words) == 0, capsys.readouterr().err
    (folder / "plainnet.py").unlink()

    entry = re.search(r'^"([\w.]+)" = "([\w.]+)"$', FILES["pyproject.toml"], re.MULTILINE)
    name = re.search(r'^name = "(.*)"$', FILES["pyproject.toml"], re.MULTILINE).group(1)
    modules = {path[len("src/"):]: code for path, code in FILES.items() if path.startswith("src/")}
    fake_distribution(name, {"plainnet/__init__.py": "", **modules}, {entry[1]: entry[2]})
    namespace = {}
    exec(FILES["tests/test_plainnet.py"], namespace)
    assert namespace["TestPlainNet"].name == f"{name}:plainnet"
    assert len(commands(4)) == 5
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)
    for words in commands(4):
        assert invoke(words) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "--plainnet-width" in shown
