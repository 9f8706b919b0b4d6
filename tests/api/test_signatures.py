"""What editors and `help` see of the Python interface: names, options, types and defaults."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Optional, Sequence, Union

import pytest

import ipucnn
from ipucnn.commands.reference import COMMANDS
from ipucnn.core.options.composition import common_options

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", ["run", "train", "restore", "validate", "average", "export",
                                     "plan"])
def test_a_signature_lists_every_option_of_its_command(command):
    parameters = inspect.signature(getattr(ipucnn, command)).parameters
    left_out = {"json", "poprun", "dashboard"} | (
        {"progress"} if command == "plan" else set())
    for options_class in COMMANDS[command]:
        for item in common_options(options_class):
            if item.name not in left_out:
                parameter = parameters[item.name]
                assert parameter.default == item.default \
                    or item.name in ("progress", "checkpoint_path"), item.name
    assert not left_out & set(parameters)


def test_types_and_the_options_of_plugins_are_listed():
    parameters = inspect.signature(ipucnn.train).parameters
    path = Union[str, os.PathLike]
    assert parameters["data_dir"].annotation == Optional[path]
    assert parameters["pipeline_splits"].annotation == Union[str, Sequence[str]]
    assert (parameters["momentum"].annotation, parameters["nesterov"].default) == (float, False)
    assert list(parameters)[-1] == "options"  # of third-party plugins
    assert "annotations" in inspect.signature(ipucnn.load_dataset).parameters
    assert "groupnorm_group_num" in inspect.signature(ipucnn.create_model).parameters
    assert "data_dir" not in inspect.signature(ipucnn.load).parameters


def test_help_explains_the_options_and_lists_the_functions():
    text = pydoc.plain(pydoc.render_doc(ipucnn.train))
    assert "lr_schedule" in text
    assert "An option of optimizer" in text
    assert "Values: " in text
    text = pydoc.plain(pydoc.render_doc(ipucnn))
    for function in (r"load\(\s*source", r"verify\(\s*path"):  # in several lines since Python 3.13
        assert re.search(function, text)


def test_dir_lists_the_public_names_and_all_of_them_exist():
    names = [name for name in dir(ipucnn) if not name.startswith("_")]
    assert names == sorted(name for name in ipucnn.__all__ if name != "__version__")
    assert all(getattr(ipucnn, name) is not None for name in names)
    assert {"load", "average", "plan", "convert", "doctor"} <= set(names)


def test_the_stub_is_what_the_declarations_generate():
    stub = runpy.run_path(str(ROOT / "docs" / "generate.py"))["stub"]()
    assert (ROOT / "ipucnn" / "__init__.pyi").read_text() == stub, "run 'make docs'"


def test_signatures_import_neither_torch_nor_the_command_line():
    code = ("import sys, inspect, ipucnn; inspect.signature(ipucnn.train); ipucnn.load; "
            "print([name for name in ('torch', 'typer', 'pandas') if name in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          check=True).stdout.strip() == b"[]"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ipucnn.run(json=True), "option 'json' applies to the command line only"),
    (lambda: ipucnn.train(progress="bar"), "option 'progress' is 'bar'"),
    (lambda: ipucnn.plan(poprun=True), "option 'poprun' applies to the command line only"),
    (lambda: ipucnn.train(resume="nowhere"), "there is no checkpoint 'nowhere' to resume"),
    (lambda: ipucnn.train(dashboard=True), "option 'dashboard' applies to the command line only"),
    (lambda: ipucnn.plan(progress=True), "option 'progress' has no effect on a plan"),
    (lambda: ipucnn.train(callbacks=[3]), "callback 3 cannot be called"),
    (lambda: ipucnn.restore("folder", config="x"), "option 'config' cannot be used"),
    (lambda: ipucnn.run(images=[[0]], data_dir="x"), "option 'data_dir' and 'images'"),
    (lambda: ipucnn.run(images=[]), "option 'images' has no images"),
    (lambda: ipucnn.shapes("x", size=2), "option 'size': 2 is too small"),
    (lambda: ipucnn.shapes("x", per_class=2.5), "option 'per_class': 2.5 is not a whole number"),
    (lambda: ipucnn.partition("x", 2.9, "y"), "option 'partitions': 2.9 is not a whole number"),
    (lambda: ipucnn.load_dataset("shapes", split="val"), "option 'split' is 'val'"),
    (lambda: ipucnn.load_dataset("shapes", length=-1), "option 'length': -1 is too small"),
    (lambda: ipucnn.load_dataset("shapes", seed="x"), "option 'seed': 'x' is not a whole number"),
    (lambda: ipucnn.load_dataset("shapes", class_names="abc"), "option 'class_names' is 'abc'"),
    (lambda: ipucnn.load(""), "option 'source' is empty"),
    (lambda: ipucnn.load(object), "option 'source': <class 'object'> is no path"),
    (lambda: ipucnn.verify(None), "option 'path': None is no path"),
    (lambda: ipucnn.report(3), "option 'runs': 3 is no path"),
    (lambda: ipucnn.list_models(None), "option 'pattern': None is not text"),
    (lambda: ipucnn.average(None), "option 'checkpoint_path': None is no path"),
    (lambda: ipucnn.load("resnet18", data_dir="x"), "option 'data_dir' applies to runs"),
    (lambda: ipucnn.create_model("resnet18", weights="random", model="resnet34"),
     "option 'model' and the name 'resnet18' both name the model"),
    (lambda: ipucnn.load("resnet18", precision="int8", backend="openvino"),
     "a loaded model is not quantised")])
def test_what_has_no_effect_in_python_is_refused_by_name(call, message):
    with pytest.raises(ipucnn.IpucnnError, match=message):
        call()
