"""Options classes of records: checked for listings, refused when used."""

import sys

import pytest
from plugin_sources import fresh, model, of, plugin, row

from ipucnn.core.errors import PluginError
from ipucnn.core.registry.registry import State

CLASSES = '''
import dataclasses
from dataclasses import dataclass
from typing import List, Tuple
from ipucnn.core.errors import UsageError
from ipucnn import option

def build(num_classes, options=None):
    return num_classes, options

@dataclass(frozen=True)
class Good:
    width: int = option(2, "Width.")
    def __post_init__(self):
        if self.width < 0:
            raise UsageError("width is negative")

class Plain: ...

@dataclass
class Mutable:
    width: int = option(2, "Width.")

@dataclass(frozen=True)
class Undeclared:
    width: int = 2

@dataclass(frozen=True)
class Required:
    width: int = dataclasses.field(metadata={"option": None})

@dataclass(frozen=True)
class Refusing:
    width: int = option(2, "Width.")
    def __post_init__(self):
        raise UsageError("width is never right")

@dataclass(frozen=True)
class Listed:
    width: List[int] = option((), "Width.")

@dataclass(frozen=True)
class Bare:
    width: Tuple = option((), "Width.")

@dataclass(frozen=True)
class TooSmall:
    width: int = option(2, "Width.", minimum=3)

@dataclass(frozen=True)
class Single:
    width: Tuple[int, ...] = option(2, "Width.")
'''
BROKEN = {
    "owned_plugin:Plain": "is not a dataclass",
    "owned_plugin:Mutable": "dataclass 'Mutable' is not frozen",
    "owned_plugin:Undeclared": "field 'width' of 'Undeclared' is not declared with 'ipucnn.option'",
    "owned_plugin:Required": "field 'width' of 'Required' has no default",
    "owned_plugin:Refusing": "UsageError: width is never right",
    "owned_plugin:Lost": "AttributeError: ",
    "owned_plugin:Listed": "field 'width' of Listed is of type typing.List[int], expected bool",
    "owned_plugin:Bare": "field 'width' of Bare is of type typing.Tuple, expected bool",
    "owned_plugin:TooSmall": "UsageError: option '--width': 2 is too small",
    "owned_plugin:Single": "the default of option '--width', 2, is not of its type",
    "no_such_module_anywhere:Options": "ModuleNotFoundError: No module named 'no_such_module_any",
}


def owned(options, **more):
    return model("tinynet", target="owned_plugin:build", options=options, **more)


def test_target_receives_its_options(install):
    install("owned", plugin(owned("owned_plugin:Good"), before=CLASSES))
    reg = fresh()
    spec = reg.get("model", "tinynet")
    assert row(reg.rows("model"), "owned").state is State.OK
    options_class = reg.options_class(spec)
    assert reg.make(spec, 7) == (7, options_class(2))
    assert reg.make(spec, 7, options=options_class(5)) == (7, options_class(5))


@pytest.mark.parametrize("options", BROKEN)
def test_broken_options_class_is_listed_as_failed_and_refused(install, options):
    install("owned", plugin(owned(options), model("othernet", target="owned_plugin:build"),
                            before=CLASSES))
    reg = fresh()
    rows = {r.name: r for r in of(reg.rows("model"), "owned")}
    assert rows["othernet"].state is State.OK
    failed = rows["tinynet"]
    assert failed.state is State.FAILED
    assert failed.cause.startswith("its options are broken: ")
    assert BROKEN[options] in failed.cause
    assert "pip uninstall owned" in failed.remedy
    spec = reg.get("model", "tinynet")
    for use in (reg.options_class, reg.make):
        with pytest.raises(PluginError) as caught:
            use(spec)
        for fact in ("the options of 'tinynet'", "owned 1.0", "models.tiny", BROKEN[options]):
            assert fact in caught.value.message
        assert "pip uninstall owned" in caught.value.hint
    assert reg.make(reg.get("model", "othernet"), 3) == (3, None)


def test_class_itself_may_be_given(install):
    record = owned("x:y").replace("'x:y'", "Good")
    broken = owned("x:y").replace("'x:y'", "Mutable").replace("tinynet", "mutable")
    install("owned", plugin(record, broken, before=CLASSES))
    rows = {r.name: r.state for r in of(fresh().rows("model"), "owned")}
    assert rows == {"tinynet": State.OK, "mutable": State.FAILED}


def test_broken_options_module_is_imported_once_for_all_records(install, tmp_path):
    count = tmp_path / "count"
    source = f"with open({str(count)!r}, 'a') as file:\n    file.write('x')\n1 / 0\n"
    (tmp_path / "installed" / "many").mkdir(parents=True)
    (tmp_path / "installed" / "many" / "many_options.py").write_text(source)
    install("many", plugin(*[model(f"net-{i}", options="many_options:Options")
                             for i in range(50)]))
    reg = fresh()
    for _ in range(2):
        assert {r.state for r in of(reg.rows("model"), "many")} == {State.FAILED}
    assert count.read_text() == "x"


def test_options_that_need_a_missing_module_are_not_imported(install):
    needs = "(ipucnn.Requirement('no_such_engine', 'pip install no-such-engine'),)"
    record = owned("no_such_engine.options:Options")[:-1] + f", requires={needs})"
    install("owned", plugin(record, before=CLASSES))
    assert row(fresh().rows("model"), "owned").state is State.UNAVAILABLE


def test_output_of_an_options_module_stays_off_stdout(install, capfd):
    install("owned", plugin(owned("chatty_options:Options")))
    folder = next(f for f in sys.path if f.endswith("installed/owned"))
    with open(folder + "/chatty_options.py", "w") as file:
        file.write("import os\nprint('printed')\nos.write(1, b'written')\n" + CLASSES
                   + "Options = Good\n")
    assert row(fresh().rows("model"), "owned").state is State.OK
    out, err = capfd.readouterr()
    assert out == ""
    assert "printed" in err
    assert "written" in err
