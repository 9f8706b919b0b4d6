"""Look-ups and states, against real distributions on `sys.path`."""

import ast
import importlib
import importlib.util
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plugin_sources import fresh, model, of, plugin, row

from ipucnn.core.errors import PluginError, UnavailableError, UnknownNameError, UsageError
from ipucnn.core.registry import contract, states
from ipucnn.core.registry.deprecations import PluginDeprecationWarning
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import ModelSpec, OptimizerSpec
from ipucnn.core.registry.registry import Registry, State, registry, use
from ipucnn.core.registry.targets import missing_requirements

FROZEN_V1 = (Path(__file__).parent / "frozen" / "plugin_v1.py").read_text()


# -- a good plugin -----------------------------------------------------------------------


def test_good_plugin_is_found_listed_and_resolved(install):
    install("tiny-dist", plugin(model("tinynet", target="tiny_dist_plugin:build"),
                                before="def build(num_classes): return num_classes"))
    reg = fresh()
    spec = reg.get_typed(ModelSpec, "tinynet")
    assert reg.resolve(spec)(7) == 7
    provider = reg.provider_of(spec)
    assert (provider.distribution, provider.version, provider.entry_point, provider.value) == (
        "tiny-dist", "1.0", "models.tiny", "tiny_dist_plugin")
    listed = row(reg.rows("model"), "tiny-dist")
    assert (listed.state, listed.name, listed.kind) == (State.OK, "tinynet", "model")


@pytest.mark.parametrize("spelling", ["tiny-net_2", "TINY_NET-2", "tiny_net_2", " Tiny-Net-2 ",
                                      "small", "Small", "tiny-dist:tiny-net-2", "TINY_DIST:SMALL",
                                      "models.tiny:tiny-net-2"])
def test_spellings_that_mean_one_record(install, spelling):
    install("tiny-dist", plugin(model("tiny-net-2", aliases=("small",))))
    assert fresh().get("model", spelling).name == "tiny-net-2"


def test_hook_may_be_a_generator_and_the_entry_point_an_object(fake_distribution):
    fake_distribution("objects", {"objects_plugin.py": f"""
        import ipucnn
        class Plugin:
            @ipucnn.hookimpl
            def ipucnn_models(self):
                yield {model("from-object")}
        instance = Plugin()
        """}, {"anything": "objects_plugin:instance"})
    assert fresh().get("model", "from-object").summary == "a net"


def test_plugin_of_the_first_contract_works(install):
    install("frozen", FROZEN_V1, entry_point="everything")
    reg = fresh()
    with warnings.catch_warnings(record=True) as emitted:
        warnings.simplefilter("always")
        found = reg.get("optimizer", "frozen-optimizer").deprecated
    assert [use.what for use in found] == ["the field 'hyperparameters' of OptimizerSpec"]
    assert {warning.category for warning in emitted} == {PluginDeprecationWarning}
    texts = [str(warning.message) for warning in emitted]
    assert len(texts) == 3
    assert ("of frozen 1.0: norm-layer 'frozen-norm-layer': a tuple as 'options' of NormLayerSpec "
            "is deprecated and ends with record contract 2: declare a dataclass as 'options'"
            ) in texts[0]
    for kind in ("model", "dataset", "norm-layer", "optimizer", "schedule", "backend"):
        spec = reg.get(kind, f"frozen-{kind}")
        assert spec.api_version == 1
        assert callable(reg.resolve(spec))
        assert row(reg.rows(kind), "frozen").state is State.OK


def test_a_deprecated_part_fails_where_warnings_are_errors(install):
    install("frozen", FROZEN_V1, entry_point="everything")
    rows = fresh().rows("optimizer")
    assert row(rows, "frozen").state is State.FAILED
    assert "PluginDeprecationWarning" in row(rows, "frozen").cause
    assert row(fresh().rows("model"), "frozen").state is State.OK  # it uses nothing deprecated


def test_one_distribution_may_give_every_kind(install):
    hooks = "".join(plugin(f"{kind.record.__name__}(name='one-{name}', summary='s', target=len)",
                           hook=kind.hook) for name, kind in KINDS.items())
    install("all-kinds", "from ipucnn.core.registry.records import *\n" + hooks,
            entry_point="everything")
    reg = fresh()
    for name, kind in KINDS.items():
        assert isinstance(reg.get(name, f"one-{name}"), kind.record)
        assert row(reg.rows(name), "all-kinds").state is State.OK


def test_two_entry_points_to_one_module_give_its_records_once(fake_distribution):
    fake_distribution("twice", {"twice_plugin.py": plugin(model("tinynet"))},
                      {"models.a": "twice_plugin", "models.b": "twice_plugin"})
    reg = fresh()
    assert row(reg.rows("model"), "twice").state is State.OK
    assert reg.get("model", "tinynet").name == "tinynet"


def test_identical_record_of_a_reloaded_module_is_one_record(fake_distribution):
    source = plugin(model("tinynet"))
    fake_distribution("copies", {"copy_a.py": source, "copy_b.py": source},
                      {"models.a": "copy_a", "models.b": "copy_b"})
    assert row(fresh().rows("model"), "copies").state is State.OK


# -- broken plugins ----------------------------------------------------------------------

BROKEN = {
    "import": ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named "
                                                   "'no_such_module_anywhere'"),
    "syntax": ("def (:\n", "SyntaxError: invalid syntax"),
    "exit": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "hook": (plugin("1 / 0"), "ZeroDivisionError: division by zero"),
    "record": (plugin(model("Bad Name")), "bad ModelSpec 'Bad Name': name is 'Bad Name', expected "
                                          "lower-case letters"),
    "field": (plugin(model("x", input_size=0)), "input_size is 0, expected a positive number"),
    "future field": (plugin(model("x", api_version=2, flavour="new")), "TypeError: "),
    "type": (plugin("'tinynet'"), "'ipucnn_models' returned 'tinynet', expected ModelSpec"),
    "wrong kind": (plugin(model("x"), hook="ipucnn_datasets"), "expected DatasetSpec"),
    "no list": ("import ipucnn\n@ipucnn.hookimpl\ndef ipucnn_models():\n    return None\n",
                "'ipucnn_models' returned None, expected an iterable of ModelSpec"),
    "misspelt": (plugin(hook="ipucnn_model"), "it implements the unknown hook 'ipucnn_model'; did "
                                              "you mean 'ipucnn_models'"),
    "arguments": ("import ipucnn\n@ipucnn.hookimpl\ndef ipucnn_models(colour):\n    return []\n",
                  "PluginValidationError: "),
    "unmarked": ("def ipucnn_models():\n    return []\n",
                 "it defines 'ipucnn_models' without '@ipucnn.hookimpl'"),
    "nothing": ("x = 1\n", "it implements none of the hooks: ipucnn_models"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_becomes_a_row_and_affects_no_other(install, caplog, case):
    source, cause = BROKEN[case]
    install("good-dist", plugin(model("tinynet")))
    install("broken-dist", source, entry_point="models.broken", version="2.5")
    reg = fresh()
    assert reg.get("model", "tinynet").name == "tinynet"
    failed = row(reg.rows("model"), "broken-dist")
    assert (failed.state, failed.spec, failed.kind) == (State.FAILED, None, "model")
    assert cause in failed.cause
    assert "\n" not in failed.cause
    assert "pip uninstall broken-dist" in failed.remedy
    assert "--no-plugins=broken-dist" in failed.remedy
    (record,) = [r for r in caplog.records if "broken-dist" in r.getMessage()]
    for fact in ("models.broken", "broken_dist_plugin", "broken-dist 2.5", cause,
                 "pip uninstall broken-dist"):
        assert fact in record.getMessage()


def test_the_error_for_an_unknown_name_names_a_broken_plugin(install):
    install("broken-dist", "import no_such_module_anywhere\n", entry_point="models.lost")
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "lostnet")
    assert caught.value.message == "unknown model 'lostnet'"
    for fact in ("models.lost", "broken-dist 1.0", "failed to load",
                 "No module named 'no_such_module_anywhere'", "'ipucnn list-plugins models'"):
        assert fact in caught.value.hint


def test_broken_plugin_of_another_kind_is_not_blamed(install):
    install("broken-dist", "import no_such_module_anywhere\n", entry_point="datasets.lost")
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "lostnet")
    assert "broken-dist" not in caught.value.hint


def test_failed_registration_is_rolled_back(fake_distribution):
    fake_distribution("half", {"half_plugin.py": plugin("1 / 0")},
                      {"models.a": "half_plugin", "models.b": "half_plugin"})
    states = [r.state for r in fresh().rows("model") if r.provider.distribution == "half"]
    assert states == [State.FAILED, State.FAILED]


def test_strict_mode_raises_with_the_attribution(install):
    install("broken-dist", "import no_such_module_anywhere\n")
    reg = fresh(strict=True)
    for _ in range(2):  # and again on the next question
        with pytest.raises(PluginError, match=r"models.tiny.*of broken-dist 1.0 failed") as caught:
            reg.rows("model")
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_a_plugin_prints_stays_off_stdout(install, capsys):
    install("chatty", plugin(model("tinynet"), before="print('hello from the plugin')"))
    fresh().get("model", "tinynet")
    out, err = capsys.readouterr()
    assert out == ""
    assert "hello from the plugin" in err


def test_load_time_is_known(install):
    install("sluggish", plugin(model("tinynet"), before="import time; time.sleep(0.2)"))
    reg = fresh()
    reg.get("optimizer", "sgd")
    assert not any(p.distribution == "sluggish" for p in reg.load_seconds())
    reg.rows()
    (seconds,) = [s for p, s in reg.load_seconds().items() if p.distribution == "sluggish"]
    assert seconds >= 0.2


# -- contract versions, requirements, targets --------------------------------------------


@pytest.mark.parametrize(("version", "remedy"), [(2, "upgrade ipucnn"), (0, "upgrade odd-dist")])
def test_record_of_another_contract_is_incompatible(install, version, remedy):
    install("odd-dist", plugin(model("oddnet", api_version=version), model("tinynet")))
    reg = fresh()
    states = {r.name: r for r in reg.rows("model") if r.provider.distribution == "odd-dist"}
    assert states["tinynet"].state is State.OK
    assert states["oddnet"].state is State.INCOMPATIBLE
    assert states["oddnet"].remedy == remedy
    with pytest.raises(PluginError, match=f"record contract {version}.*supports 1") as caught:
        reg.get("model", "oddnet")
    assert caught.value.hint == remedy
    assert "odd-dist 1.0" in caught.value.message


def test_record_without_a_version_stays_one_of_version_1(install, monkeypatch):
    monkeypatch.setattr(contract, "API_VERSION", 2)
    monkeypatch.setattr(states, "SUPPORTED", frozenset({1, 2}))
    install("old-dist", plugin(model("oldnet"), model("newnet", api_version=2),
                               model("oddnet", api_version=3)))
    reg = fresh()
    assert reg.get("model", "oldnet").api_version == 1
    listed = {r.name: r for r in of(reg.rows("model"), "old-dist")}
    assert listed["oldnet"].state is listed["newnet"].state is State.OK
    assert listed["oddnet"].cause == "written for record contract 3; this ipucnn supports 1, 2"
    assert listed["oddnet"].remedy == "upgrade ipucnn"


def test_incompatible_record_does_not_make_a_good_name_ambiguous(install):
    install("future", plugin(model("tinynet", api_version=9)))
    install("present", plugin(model("tinynet", input_size=64)))
    reg = fresh()
    assert reg.get_typed(ModelSpec, "tinynet").input_size == 64
    assert row(reg.rows("model"), "present").state is State.OK


def test_missing_requirement_makes_it_unavailable_until_used(install):
    needs = "(ipucnn.Requirement('no_such_engine.sub', 'pip install no-such-engine'),)"
    install("needy", plugin(model("tinynet")[:-1] + f", requires={needs})"))
    reg = fresh()
    listed = row(reg.rows("model"), "needy")
    assert listed.state is State.UNAVAILABLE
    assert listed.cause == "needs 'no_such_engine.sub', which is not installed"
    assert listed.remedy == "pip install no-such-engine"
    assert of(reg.rows("model"), "needy") == [listed]
    spec = reg.get("model", "tinynet")
    with pytest.raises(UnavailableError, match=r"'tinynet' of needy 1.0 needs "
                                               r"'no_such_engine.sub'") as caught:
        reg.resolve(spec)
    assert caught.value.hint == "pip install no-such-engine"
    assert caught.value.exit_code == 2


def test_requirement_that_is_installed_meanwhile_is_found(install, tmp_path, monkeypatch):
    needs = "(ipucnn.Requirement('late_engine', 'pip install late-engine'),)"
    install("needy", plugin(model("tinynet", target="json:loads")[:-1] + f", requires={needs})"))
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    reg = fresh()
    assert row(reg.rows("model"), "needy").state is State.UNAVAILABLE
    (folder / "late_engine.py").write_text("")
    importlib.invalidate_caches()
    assert callable(reg.resolve(reg.get("model", "tinynet")))
    assert row(reg.rows("model"), "needy").state is State.OK


@pytest.mark.parametrize(("target", "cause"), [
    ("no_such_module_anywhere:build", "ModuleNotFoundError"),
    ("lazy_plugin:lost", "AttributeError"),
    ("lazy_plugin:Holder.lost", "AttributeError"),
    ("lazy_plugin:number", "is not callable"),
])
def test_target_that_cannot_be_used_is_attributed(install, target, cause):
    install("lazy", plugin(model("tinynet", target=target), before="number = 1\nclass Holder: ..."))
    reg = fresh()
    spec = reg.get("model", "tinynet")
    with pytest.raises(PluginError) as caught:
        reg.resolve(spec)
    for fact in (repr(target), "'tinynet'", "lazy 1.0", "models.tiny", cause):
        assert fact in caught.value.message
    assert "pip uninstall lazy" in caught.value.hint


@pytest.mark.parametrize("source", ["def build(): ...", "import abc\nclass build(abc.ABC):\n"
                                    "    @abc.abstractmethod\n    def forward(self): ..."])
def test_target_that_cannot_be_called_is_attributed(install, source):
    install("lazy", plugin(model("tinynet", target="lazy_plugin:build"), before=source))
    reg = fresh()
    with pytest.raises(PluginError) as caught:
        reg.make(reg.get("model", "tinynet"), 1)
    for fact in ("'tinynet'", "lazy 1.0", "cannot be called", "build"):
        assert fact in caught.value.message
    assert "pip uninstall lazy" in caught.value.hint


def test_type_errors_within_a_target_keep_their_traceback(install):
    install("lazy", plugin(model("tinynet", target="lazy_plugin:build"),
                           before="def build(number):\n    return number + 'text'"))
    reg = fresh()
    with pytest.raises(TypeError, match="unsupported operand"):
        reg.make(reg.get("model", "tinynet"), 1)


def test_nested_and_callable_targets_resolve(install):
    install("nested", plugin(model("tinynet", target="nested_plugin:Holder.build"),
                             model("direct")[:-1].replace("'tinynet:build'", "len") + ")",
                             before="class Holder:\n    build = staticmethod(len)"))
    reg = fresh()
    assert reg.resolve(reg.get("model", "tinynet")) is len
    assert reg.resolve(reg.get("model", "direct")) is len


def test_record_of_elsewhere_is_refused():
    with pytest.raises(PluginError, match=r"'stray' is not in this registry"):
        fresh().resolve(ModelSpec(name="stray", summary="s", target=len))


# -- names that clash --------------------------------------------------------------------


def test_duplicate_across_distributions_is_ambiguous_and_other_names_work(install):
    install("first", plugin(model("tinynet", input_size=32), model("only-first")))
    install("second", plugin(model("tinynet", input_size=64)))
    reg = fresh()
    with pytest.raises(PluginError) as caught:
        reg.get("model", "Tiny_Net".replace("_", ""))
    assert "'first:tinynet'" in caught.value.message
    assert "'second:tinynet'" in caught.value.message
    assert reg.get_typed(ModelSpec, "first:tinynet").input_size == 32
    assert reg.get_typed(ModelSpec, "second:tinynet").input_size == 64
    assert reg.get("model", "only-first").name == "only-first"
    clash = [r for r in reg.rows("model", "tinynet") if r.state is State.CONFLICT]
    assert {r.remedy for r in clash} == {"use 'first:tinynet'", "use 'second:tinynet'"}
    assert "second 1.0" in row(clash, "first").cause


def test_duplicate_within_a_distribution_is_distinguished_by_entry_point(fake_distribution):
    fake_distribution("double", {"double_a.py": plugin(model("tinynet", input_size=32)),
                                 "double_b.py": plugin(model("tinynet", input_size=64))},
                      {"models.a": "double_a", "models.b": "double_b"})
    reg = fresh()
    for name in ("tinynet", "double:tinynet"):
        with pytest.raises(PluginError, match=r"'models.a:tinynet' and 'models.b:tinynet'"):
            reg.get("model", name)
    assert reg.get_typed(ModelSpec, "models.b:tinynet").input_size == 64


@pytest.mark.parametrize("name", ["sgd", "SGD", "sgd-combined-accum"])
def test_built_in_name_or_alias_cannot_be_shadowed(install, name):
    record = f"ipucnn.OptimizerSpec(name={name.lower()!r}, summary='mine', target=len)"
    install("shadow", plugin(record, hook="ipucnn_optimizers"), entry_point="optimizers.shadow")
    reg = fresh()
    listed = row(reg.rows("optimizer"), "shadow")
    assert listed.state is State.CONFLICT
    assert "is a built-in name" in listed.cause
    assert listed.remedy == f"use 'shadow:{name.lower()}'"
    assert reg.provider_of(reg.get("optimizer", name)).builtin
    assert reg.get("optimizer", f"shadow:{name}").summary == "mine"
    assert reg.provider_of(reg.get("optimizer", f"ipucnn:{name}")).builtin


def test_alias_taken_by_a_built_in_is_noted(install):
    record = "ipucnn.OptimizerSpec(name='mine', summary='mine', target=len, aliases=('sgd',))"
    install("shadow", plugin(record, hook="ipucnn_optimizers"), entry_point="optimizers.shadow")
    reg = fresh()
    listed = row(reg.rows("optimizer"), "shadow")
    assert listed.state is State.OK
    assert "alias 'sgd' is a built-in name" in listed.cause
    assert reg.get("optimizer", "sgd").name == "sgd"
    assert reg.get("optimizer", "mine").name == "mine"


def test_name_outranks_an_alias_and_equal_aliases_are_ambiguous(install):
    install("first", plugin(model("tinynet"), model("a-net", aliases=("shared",))))
    install("second", plugin(model("other", aliases=("tinynet", "shared"))))
    reg = fresh()
    assert reg.provider_of(reg.get("model", "tinynet")).distribution == "first"
    with pytest.raises(PluginError, match=r"'first:a-net' and 'second:other'"):
        reg.get("model", "shared")


def test_entry_point_named_like_a_distribution_does_not_capture_it(install):
    record = "ipucnn.OptimizerSpec(name='sgd', summary='mine', target=len)"
    install("thief", plugin(record, hook="ipucnn_optimizers"), entry_point="ipucnn")
    assert fresh().get("optimizer", "ipucnn:sgd").summary != "mine"


# -- unknown names -----------------------------------------------------------------------


def test_unknown_name_suggests_and_names_the_listing(install):
    install("tiny-dist", plugin(model("tinynet", aliases=("smallnet",))))
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "tinynett")
    assert caught.value.message == "unknown model 'tinynett'"
    assert "did you mean 'tinynet'" in caught.value.hint
    assert "'ipucnn list-plugins models' lists all" in caught.value.hint
    assert caught.value.exit_code == 2


def test_suggestions_are_at_most_three(install):
    install("many", plugin(*[model(f"tinynet{i}") for i in range(6)]))
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "tinynet")
    assert caught.value.hint.count("'tinynet") == 3


def test_suggestion_for_a_conflicting_name_is_qualified(install):
    install("first", plugin(model("tinynet", input_size=32)))
    install("second", plugin(model("tinynet", input_size=64)))
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "tinynett")
    assert "'first:tinynet'" in caught.value.hint
    assert "'second:tinynet'" in caught.value.hint


def test_unknown_distribution_in_a_qualified_name(install):
    install("tiny-dist", plugin(model("tinynet")))
    with pytest.raises(UnknownNameError) as caught:
        fresh().get("model", "tiny-dits:tinynet")
    assert "there is no model plugin 'tiny-dits', did you mean 'tiny-dist'?" in caught.value.hint


def test_unknown_kind():
    with pytest.raises(UsageError, match=r"unknown kind 'modell'") as caught:
        fresh().get("modell", "x")
    assert "did you mean 'model'" in caught.value.hint


@pytest.mark.parametrize("spelling", ["schedule", "schedules", "schedulers", "Norm_Layers"])
def test_kinds_in_every_spelling(spelling):
    assert fresh().rows(spelling)


# -- listings and settings ---------------------------------------------------------------


def test_rows_are_filtered_by_wildcard_over_names_and_aliases(install):
    install("zoo", plugin(model("lion-18"), model("lion-34"), model("bear", aliases=("lion_x",)),
                          model("wolf")))
    names = {r.name for r in fresh().rows("model", "LION_*")}
    assert names == {"lion-18", "lion-34", "bear"}


def test_listing_of_a_kind_loads_entry_points_of_that_kind_or_of_none(install, monkeypatch):
    names = {"models.a": True, "free": True, "unknown.b": True, "optimizers.c": False,
             "schedulers.d": False, "norm_layers.e": False}
    for i, name in enumerate(names):
        install(f"kind-{i}", plugin(model(f"net-{i}")), entry_point=name)
    reg = fresh()
    listed = {r.name for r in reg.rows("model") if not r.provider.builtin}
    assert listed == {f"net-{i}" for i, wanted in enumerate(names.values()) if wanted}
    assert [f"kind_{i}_plugin" in sys.modules for i in range(6)] == list(names.values())
    assert reg.get("model", "net-4").name == "net-4"  # an unknown name loads the others too
    assert len(of(reg.rows(), "kind-5")) == 1


def test_listing_has_built_ins_first(install):
    install("a-first", plugin(model("aaa")))
    builtin = [r.provider.builtin for r in fresh().rows("model")]
    assert builtin == sorted(builtin, reverse=True)


def test_row_has_the_state_that_a_listing_shows(install):
    install("first", plugin(model("tinynet", input_size=32)))
    install("second", plugin(model("tinynet", input_size=64)))
    reg = fresh()
    assert reg.row("model", "second:tinynet").state is State.CONFLICT
    assert reg.row("model", "resnet50").state is State.OK


@pytest.mark.parametrize(("settings", "cause"), [
    ({"disable_all": True}, "all plugins are disabled"),
    ({"disabled": frozenset({"Marker_Dist"})}, "disabled by --no-plugins"),
    ({"disabled": frozenset({"models.tiny"})}, "disabled by --no-plugins"),
    ({"only": frozenset({"other"})}, "not listed in IPUCNN_LOAD_PLUGINS"),
    ({"only": frozenset()}, "not listed in IPUCNN_LOAD_PLUGINS"),
])
def test_disabled_plugin_is_never_imported(install, tmp_path, settings, cause):
    mark = tmp_path / "imported"
    install("marker-dist", plugin(model("tinynet"), before=f"open({str(mark)!r}, 'w').close()"))
    reg = fresh(**settings)
    listed = row(reg.rows(), "marker-dist")
    assert listed.state is State.DISABLED
    assert cause in listed.cause
    assert listed.remedy
    for name in ("tinynet", "marker-dist:tinynet"):
        with pytest.raises(UnknownNameError, match=r"marker-dist 1.0.*is disabled"):
            reg.get("model", name)
    assert not mark.exists()
    fresh().rows()
    assert mark.exists()  # the same plugin does write when it is allowed


def test_allowed_plugin_alone_is_loaded(install):
    install("wanted", plugin(model("tinynet")))
    install("unwanted", plugin(model("othernet")))
    reg = fresh(only=frozenset({"wanted"}))
    assert reg.get("model", "tinynet")
    assert row(reg.rows("model"), "unwanted").state is State.DISABLED


def test_built_in_look_up_and_names_import_no_third_party(install):
    install("sleeper", plugin(model("tinynet")))
    reg = fresh()
    reg.get("optimizer", "sgd")
    reg.get("ScheduleS", "No")
    assert "sgd" in reg.names("optimizer")
    assert "sleeper_plugin" not in sys.modules
    reg.rows("optimizer")
    assert "sleeper_plugin" not in sys.modules  # 'models.tiny' is named for another kind
    reg.rows("model")
    assert "sleeper_plugin" in sys.modules


# -- plugins named for one run -----------------------------------------------------------


def test_plugin_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(plugin(model("tinynet", target="ipucnn_local_mine:build"),
                           before="def build(num_classes): return 5"))
    reg = fresh(extra=(str(path),), disable_all=True)
    spec = reg.get("model", "tinynet")
    assert reg.resolve(spec)(1) == 5
    assert reg.get("model", "mine:tinynet") is spec
    assert reg.rows("model", "tinynet")[0].state is State.OK


def test_plugin_module(tmp_path, monkeypatch):
    (tmp_path / "local_research.py").write_text(plugin(model("tinynet")))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "local_research", raising=False)
    assert fresh(extra=("local_research",)).get("model", "tinynet").name == "tinynet"


def test_plugin_files_of_one_name_are_two_plugins(tmp_path):
    paths = [tmp_path / place for place in ("a/my-net.py", "b/my-net.py", "ipucnn.py")]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(plugin(
            f"ipucnn.ModelSpec(name='net{number}', summary='s', target=f'{{__name__}}:build')",
            model("tinynet", target=f"ipucnn_local_{number}:build"),
            before=f"def build(num_classes): return {number}"))
    reg = fresh(extra=tuple(map(str, paths)), disable_all=True)
    assert [reg.resolve(reg.get("model", f"net{number}"))(9) for number in range(3)] == [0, 1, 2]
    providers = [reg.provider_of(reg.get("model", f"net{number}")) for number in range(3)]
    assert [provider.builtin for provider in providers] == [False] * 3
    for number, provider in enumerate(providers):
        assert reg.get("model", f"{provider.distribution}:tinynet").target \
            == f"ipucnn_local_{number}:build"
    with pytest.raises(PluginError, match=f"'{providers[1].distribution}:tinynet'"):
        reg.get("model", "my-net:tinynet")  # of which there are two
    assert [reg.name_of(reg.get("model", name)) for name in (
        "net0", "my-net:net0", f"{providers[1].distribution}:tinynet")] == [
            "net0", "net0", f"{providers[1].distribution}:tinynet"]
    (tmp_path / "link").symlink_to(tmp_path / "a")
    again = [f"{tmp_path}/{place}/my-net.py" for place in ("a/../a", "link")]
    alone = fresh(extra=(str(paths[0]), *again), disable_all=True)
    spec = alone.get("model", "my-net:net0")
    assert spec.target == "ipucnn_local_my_net:build"
    assert alone.resolve(spec)(9) == 0
    assert alone.get("model", f"{providers[0].distribution}:net0") is spec
    with pytest.raises(UnknownNameError):
        alone.get("model", "my-nets:net0")


def test_local_plugin_cannot_shadow_a_built_in(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(plugin("ipucnn.OptimizerSpec(name='sgd', summary='mine', target=len)",
                           hook="ipucnn_optimizers"))
    reg = fresh(extra=(str(path),))
    assert reg.get("optimizer", "sgd").summary != "mine"
    assert reg.get("optimizer", "mine:sgd").summary == "mine"


@pytest.mark.parametrize(("name", "source", "cause"), [
    ("lost.py", None, "there is no such file"),
    ("folder/lost.txt", None, "there is no such file"),
    ("no_such_module_anywhere", None, "No module named 'no_such_module_anywhere'"),
    ("broken.py", "def (:\n", "SyntaxError"),
    ("notes.txt", "hello", "it is not a Python file"),
    ("empty.py", "", "it implements none of the hooks"),
])
def test_broken_local_plugin_stops_the_run_but_not_the_listing(tmp_path, name, source, cause):
    path = name
    if source is not None:
        path = str(tmp_path / name)
        Path(path).write_text(source)
    reg = fresh(extra=(path,))
    with pytest.raises(PluginError) as caught:
        reg.get("optimizer", "sgd")
    assert caught.value.message.startswith(f"plugin {path!r}: ")
    assert cause in caught.value.message
    assert "--plugin" in caught.value.hint
    (failed,) = [r for r in reg.rows("optimizer") if r.provider.value == path]
    assert failed.state is State.FAILED
    assert cause in failed.cause
    assert any(r.name == "sgd" for r in reg.rows("optimizer"))


# -- the built-ins and the registry of the process ---------------------------------------


def test_the_process_has_one_registry(install):
    use(None)
    first = registry()
    assert registry() is first
    mine = fresh()
    use(mine)
    assert registry() is mine
    use(None)
    assert registry() is not mine
    use(None)


def test_without_an_installation_it_is_an_error():
    with pytest.raises(PluginError, match=r"own plugins are not installed") as caught:
        Registry(PluginSettings(), entry_points=[])
    assert "pip install" in caught.value.hint


BUILTINS = Registry(PluginSettings(disable_all=True))


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_spellings_are_unique(kind):
    spellings = [s for r in BUILTINS.rows(kind) for s in (r.spec.keys if r.spec else ())]
    assert sorted(set(spellings)) == sorted(spellings)


def test_every_built_in_entry_point_loads():
    failed = [(r.provider.entry_point, r.cause) for r in BUILTINS.rows()
              if r.provider.builtin and r.spec is None]
    assert failed == []


@pytest.mark.parametrize(("kind", "name"),
                         [(r.kind, r.name) for r in BUILTINS.rows() if r.spec])
def test_every_built_in_target_exists(kind, name):
    spec = BUILTINS.get(kind, name)
    if not missing_requirements(spec):
        assert callable(BUILTINS.resolve(spec))
        return
    # Its engine is not on this machine, so the module cannot be imported; it can be read.
    module, _, attribute = spec.target.partition(":")
    source = Path(importlib.util.find_spec(module).origin).read_text()
    assert attribute in {node.name for node in ast.parse(source).body
                         if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_get_typed_returns_the_record_type():
    assert isinstance(BUILTINS.get_typed(OptimizerSpec, "adamw"), OptimizerSpec)


SLOW = '''
import time
time.sleep(0.05)
import ipucnn

@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="slow", summary="s", target=dict)]
'''


def test_threads_that_use_a_plugin_first_load_it_once(tmp_path, monkeypatch):
    plugin = tmp_path / "slow.py"
    plugin.write_text(SLOW)
    monkeypatch.setenv("IPUCNN_PLUGIN", str(plugin))
    use(None)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: registry().get("model", "slow"), range(4)))
    finally:
        use(None)
    assert {id(spec) for spec in found} == {id(found[0])}


RAISING = '''
import ipucnn

def schedule(epoch):
    return 1 / 0

@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="falls", summary="s", target=schedule)]
'''


def test_the_plugin_whose_code_raised_an_error_is_found(tmp_path):
    file = tmp_path / "raising.py"
    file.write_text(RAISING)
    reg = Registry(PluginSettings(extra=(str(file),)))
    with pytest.raises(ZeroDivisionError) as raised:
        reg.make(reg.get("lr-schedule", "falls"), 0.0)
    assert reg.raised_by(raised.value).value == str(file)
    assert reg.raised_by(ValueError("elsewhere")) is None


def test_the_plugin_whose_code_raised_the_cause_is_found(tmp_path):
    file = tmp_path / "raising.py"
    file.write_text(RAISING.replace("return 1 / 0", "next(iter(()))"))
    reg = Registry(PluginSettings(extra=(str(file),)))

    def generator():
        yield reg.make(reg.get("lr-schedule", "falls"), 0.0)

    with pytest.raises(RuntimeError, match="generator raised StopIteration") as raised:
        next(generator())
    assert reg.raised_by(raised.value).value == str(file)
