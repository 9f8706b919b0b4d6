"""Which options of a command are those of its launcher."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.execution import launching
from ipucnn.core.registry.registry import registry
from ipucnn.terminal import launch
from ipucnn.terminal.flags import flag_table
from ipucnn.terminal.launch import LaunchOptions, launcher_of, started
from ipucnn.training.options.train_options import TrainOptions

SORTER = """
from dataclasses import dataclass
import ipucnn

@dataclass(frozen=True)
class Options:
    nproc: int = ipucnn.option(1, "Processors.")

@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="sorter", summary="s", target=len, options=Options)]
"""


@pytest.fixture
def sorter(isolated_registry, tmp_path):
    """An optimizer with an option of the name of a launcher's."""
    path = tmp_path / "sorter.py"
    path.write_text(SORTER)
    isolated_registry(path)


@pytest.mark.parametrize("spelling", ["nproc", "launcher.nproc"])
def test_options_of_a_launcher_in_both_spellings(spelling):
    given = {"launcher": "torchrun", spelling: "2", "lr": 0.1}
    name, own = launcher_of(given)
    assert (name, own.nproc, given) == ("torchrun", 2, {"lr": 0.1})
    words = ["--launcher", "torchrun", f"--{spelling}", "2"]
    flags = flag_table([TrainOptions, LaunchOptions], words, registry()).by_spelling()
    assert flags[f"--{spelling}"].name == spelling


@pytest.mark.parametrize("given", [
    {"optimizer": "sorter", "nproc": "2"}, {"nproc": "2"}, {"max_restarts": "0"}])
def test_without_a_launcher_options_are_left_to_the_command(sorter, given):
    before = dict(given)
    assert launcher_of(given) is None
    assert given == before


def test_an_option_of_another_selected_plugin_stays_its_own(sorter):
    given = {"launcher": "local", "optimizer": "sorter", "nproc": "2"}
    assert launcher_of(given) == ("local", None)
    assert given == {"optimizer": "sorter", "nproc": "2"}
    given = {"launcher": "torchrun", "optimizer": "sorter", "launcher.nproc": "2",
             "optimizer.nproc": "3"}
    assert launcher_of(given)[1].nproc == 2
    assert given == {"optimizer": "sorter", "optimizer.nproc": "3"}


def test_an_option_of_two_selected_plugins_needs_its_qualified_spelling(sorter):
    with pytest.raises(UsageError) as caught:
        launcher_of({"launcher": "torchrun", "optimizer": "sorter", "nproc": "2"})
    assert caught.value.hint == "name the plugin: '--optimizer.nproc' and '--launcher.nproc'"


BERTH = """
from dataclasses import dataclass
import ipucnn
from ipucnn.plugin import Instances, Launch, Launcher

@dataclass(frozen=True)
class Options:
    port: int = ipucnn.option(1, "Port.")

class Berth(Launcher):
    def __init__(self, options):
        self.port = options.port
    def launch(self, environment):
        return Launch(0, self.port) if "BERTH_RANK" in environment else None
    def environment(self, index, count):
        return {"BERTH_RANK": str(index)}
    def join(self):
        instances = Instances()
        instances.count = self.port
        return instances

@ipucnn.hookimpl
def ipucnn_launchers():
    return [ipucnn.LauncherSpec(name="berth", summary="s", target=Berth, options=Options,
                                variables=("BERTH_RANK",))]
"""


def test_a_started_process_has_the_options_of_its_launcher(isolated_registry, tmp_path,
                                                           monkeypatch):
    path = tmp_path / "berth.py"
    path.write_text(BERTH)
    isolated_registry(path)
    monkeypatch.setenv("BERTH_RANK", "0")
    try:
        assert started({"launcher": "berth", "port": 7}) is None
        assert launching.launched().count == 7
        assert launching.joined().count == 7
    finally:
        launching.select(None)


def test_a_script_of_a_shell_around_the_program_is_not_started_again(tmp_path, monkeypatch):
    module = [sys.executable, "-m", "ipucnn"]
    script = tmp_path / "ipucnn"
    for argument, content, words in (
            (script, "#!/usr/bin/python3\n", [sys.executable, str(script)]),
            (script, "#!/bin/sh\n'''exec' '/a b/python' \"$0\" \"$@\"\n' '''\n",
             [sys.executable, str(script)]),
            (script, "#!/bin/sh\nexec ipucnn\n", module), (tmp_path / "__main__.py", "", module),
            (tmp_path / "missing" / "ipucnn", None, module)):
        if content is not None:
            argument.write_text(content)
        monkeypatch.setattr("sys.argv", [str(argument), "train"])
        assert launch._program() == words


STARTS = """
import subprocess
import ipucnn
from ipucnn.plugin import Launcher

class Starts(Launcher):
    def launch(self, environment):
        return None
    def environment(self, index, count):
        return {}
    def join(self):
        raise NotImplementedError
    def start(self, command):
        return subprocess.call([*command, "--help"])

@ipucnn.hookimpl
def ipucnn_launchers():
    return [ipucnn.LauncherSpec(name="starts", summary="s", target=Starts)]
"""


def test_started_processes_import_no_files_of_the_working_folder(tmp_path):
    script, folder = tmp_path / "bin" / "ipucnn", tmp_path / "work"
    script.parent.mkdir()
    folder.mkdir()
    script.write_text("#!/usr/bin/env python3\nimport sys\nfrom ipucnn.__main__ import main\n"
                      "sys.exit(main())\n")
    (folder / "queue.py").write_text("raise RuntimeError('a file of the user')\n")
    plugin = tmp_path / "starts.py"
    plugin.write_text(STARTS)
    done = subprocess.run(
        [sys.executable, str(script), "--plugin", str(plugin), "run", "--launcher", "starts",
         "--data", "synthetic"], cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--launcher" in done.stdout
