"""Options of plugins: their owners, and errors for options without one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from owner_plugins import BROKEN, LION, LOGGERS

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.options.assignment import by_name, owned_by, settled
from ipucnn.core.options.building import Source, build
from ipucnn.core.options.composition import Given
from ipucnn.core.options.owners import builtin_owners, in_words
from ipucnn.core.registry.records import DatasetSpec, OptimizerSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.options import ExportOptions
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.training.options.stored_options import ValidateOptions
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions


@pytest.fixture
def lion(fake_distribution):
    """Third parties' plugins: optimizer `lion`, schedule `waves`, backend `abacus`."""
    fake_distribution("zoo", {"zoo_plugin.py": LION}, {"zoo": "zoo_plugin"})


def refused(options_class, given, *sources):
    with pytest.raises(UsageError) as caught:
        build(options_class, given, *sources)
    return caught.value


# -- what is selected ----------------------------------------------------------------------------


def test_options_of_what_is_selected_by_default_by_name_or_from_a_third_party(lion):
    options = build(TrainOptions, {"lr_schedule": "step", "lr_decay": 0.1, "optimizer": "lion",
                                   "beta2": "0.5", "edge": 4, "marks": "a b"})
    assert options.plugins.of("lr-schedule", "step").lr_decay == 0.1
    own = options.plugins.of("optimizer", "lion")
    assert (own.beta2, own.sharpness, own.marks) == (0.5, 4, ("a", "b"))
    assert options.plugins.of("optimizer", "sgd") is None
    assert build(TrainOptions, {"optimizer": "ZOO:Lion"}).plugins.of("optimizer", "lion").beta2 \
        == 0.99


@pytest.mark.parametrize(("given", "message"), [
    ({"beta2": 2}, "option '--beta2': 2 is too large"),
    ({"sharpness": 0}, "option '--sharpness': 0 is too small"),
    ({"edge": "very"}, "option '--sharpness': 'very' is not a whole number"),
    ({"marks": "c"}, "option '--marks': 'c' is not one of its values"),
    ({"optimizer.beta2": "much"}, "option '--beta2': 'much' is not a number"),
])
def test_values_are_checked_by_their_declaration(lion, given, message):
    assert message in refused(TrainOptions, {"optimizer": "lion", **given}).message


def test_a_wrong_value_is_blamed_on_its_line(lion):
    source = Source({"optimizer": "lion", "beta2": 2}, {"beta2": "p.yaml, line 7"})
    assert "(p.yaml, line 7)" in refused(TrainOptions, source).message


def test_options_that_contradict_each_other_are_refused_by_their_class():
    error = refused(TrainOptions, {"optimizer": "lamb", "trust_ratio_min": 2,
                                   "trust_ratio_max": 1})
    assert "'--trust-ratio-max 1' is below '--trust-ratio-min 2'" in error.message


def test_options_of_datasets_that_are_read_in_the_place_of_another():
    plugins = build(TrainOptions, {"data": "imagenet", "data_cache_dir": "there"}).plugins
    assert plugins.of("dataset", "webdataset").data_cache_dir == "there"


# -- qualified spellings -------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [
    "optimizer.beta2", "--optimizer.beta2", "Optimizer.BETA2"])
def test_qualified_spellings(lion, spelling):
    options = build(TrainOptions, {"optimizer": "lion", spelling: 0.25})
    assert options.plugins.value("beta2") == 0.25


@pytest.mark.parametrize("qualifier", ["lr-schedule", "lr_schedule", "--lr-schedule"])
def test_an_option_of_two_selected_plugins_needs_its_qualified_spelling(lion, qualifier):
    both = {"optimizer": "lion", "lr_schedule": "waves"}
    error = refused(TrainOptions, Source({**both, "shared": 2}, {"shared": "p.yaml, line 3"}))
    assert error.message == ("'--shared' is an option of several plugins in use "
                             "(p.yaml, line 3)")
    assert error.hint == "name the plugin: '--optimizer.shared' and '--lr-schedule.shared'"
    options = build(TrainOptions, {**both, "optimizer.shared": 2, f"{qualifier}.shared": 3})
    assert options.plugins.of("optimizer", "lion").shared == 2
    assert options.plugins.of("lr-schedule", "waves").shared == 3
    saved = options.as_dict()
    assert (saved["optimizer.shared"], saved["lr_schedule.shared"]) == (2, 3)
    assert "shared" not in saved
    assert build(TrainOptions, saved) == options
    alone = build(TrainOptions, {"optimizer": "lion", "shared": 2})
    assert alone.plugins.value("shared") == 2


@pytest.fixture
def loggers(fake_distribution):
    """Loggers `sky/cloud` and `paper`, both with an option `project`."""
    fake_distribution("records", {"logger_plugin.py": LOGGERS}, {"records": "logger_plugin"})


def test_two_plugins_of_one_kind_are_distinguished_by_their_names(loggers):
    both = {"logger": ("sky/cloud", "paper")}
    for spelling in ("project", "logger.project"):
        error = refused(TrainOptions, {**both, spelling: "a"})
        assert error.message == f"'--{spelling}' is an option of several plugins in use"
        assert error.hint == ("name the plugin: '--logger.sky-cloud.project' and "
                              "'--logger.paper.project'")
    options = build(TrainOptions, {**both, "logger.sky-cloud.project": "a", "tags": "x y",
                                   "logger.paper.project": "b"})
    cloud, paper = (options.plugins.of("logger", name) for name in both["logger"])
    assert (cloud.project, cloud.tags, paper.project) == ("a", ("x", "y"), "b")
    saved = options.as_dict()
    assert (saved["logger.sky-cloud.project"], saved["logger.paper.project"]) == ("a", "b")
    assert "project" not in saved
    assert build(TrainOptions, saved) == options
    alone = build(TrainOptions, {"logger": ("paper",), "project": "b"})
    assert alone.as_dict()["project"] == "b"
    error = refused(TrainOptions, {"logger": ("paper",), "logger.paper.project": "b",
                                   "project": "c"})
    assert "are spellings of one option" in error.message


def test_two_plugins_of_one_name_are_not_selected_together(fake_distribution):
    for name in ("east", "west"):
        source = LOGGERS.replace("project", f"{name}_project")
        fake_distribution(name, {f"{name}_plugin.py": source}, {name: f"{name}_plugin"})
    error = refused(TrainOptions, {"logger": ("east:paper", "files", "west:paper")})
    assert error.message == ("loggers 'east:paper' and 'west:paper' have one name and cannot be "
                             "selected together")
    alone = build(TrainOptions, {"logger": ("west:paper",), "west_project": "a"})
    assert alone.plugins.value("west_project") == "a"


def test_owners_are_named_as_they_are_selected(fake_distribution):
    """The name alone is ambiguous, or selects a built-in plugin."""
    for distribution, name in (("east", "paper"), ("west", "paper"), ("south", "files")):
        source = LOGGERS.replace("PaperOptions:\n    ", f"PaperOptions:\n    {distribution}_")
        source = source.replace('"paper"', f'"{name}"')
        fake_distribution(distribution, {f"{distribution}_plugin.py": source},
                          {distribution: f"{distribution}_plugin"})
    for name in ("west:paper", "south:files"):
        option = f"{name.partition(':')[0]}_project"
        error = refused(TrainOptions, {"logger": ("tensorboard",), option: "a"})
        assert f"is an option of logger {name};" in error.message
        assert error.hint == f"leave it out, or choose '--logger {name}'"
        options = build(TrainOptions, {"logger": (name,), option: "a"})
        assert options.plugins.value(option) == "a"


def test_flags_of_two_plugins_of_one_kind(loggers):
    table = flag_table([TrainOptions], ["--logger", "sky/cloud", "paper"], registry())
    flags = table.by_spelling()
    assert flags["--logger.paper.project"].name == "logger.paper.project"
    assert "--logger.sky-cloud.tags" in flags
    given = parsed(TrainOptions, ["--logger", "sky/cloud", "--logger", "paper",
                                  "--logger.paper.project", "b"], registry())
    assert build(TrainOptions, given).plugins.of("logger", "paper").project == "b"
    assert "--optimizer.sgd.momentum" not in flags  # one optimizer at a time


@pytest.mark.parametrize("arguments", [
    ["--logger", "sky/cloud", "paper"], ["--logger", "sky/cloud", "--logger", "paper"],
    ["--logger=sky/cloud", "--logger=paper"], ["--logger=sky/cloud", "paper"]])
def test_flags_are_of_all_plugins_that_arguments_select(loggers, arguments):
    selected = flag_table([TrainOptions], arguments, registry()).selected
    assert [owner.name for owner in selected if owner.kind.name == "logger"] == [
        "sky/cloud", "paper"]


def test_a_list_of_booleans_has_values(loggers):
    arguments = ["--logger", "sky/cloud", "--parts", "true", "no", "--tags", "a"]
    options = build(TrainOptions, parsed(TrainOptions, arguments, registry()))
    own = options.plugins.of("logger", "sky/cloud")
    assert (own.parts, own.tags) == ((True, False), ("a",))


def test_an_option_without_the_one_that_it_needs_is_refused():
    given = {"data": "coco", "data_dir": "there", "annotations": "a.json"}
    error = refused(RunOptions, given)
    assert error.message == "'--annotations' has no effect without '--predictions'"
    assert error.hint.startswith("add '--predictions FILE")
    build(RunOptions, {**given, "predictions": "p.csv"})
    build(ConvertOptions, {"target": "there", "annotations": "a.json"})


def test_what_a_restored_training_keeps_is_no_way_out():
    """A hint names no selection that the command refuses."""
    with pytest.raises(UsageError) as caught:
        build(TrainOptions, {"trust_ratio_max": 2}, restoring=True)
    assert caught.value.hint == ("leave it out: a training is restored with the same "
                                 "'--optimizer'")
    with pytest.raises(UsageError) as caught:  # a backend can be changed
        build(TrainOptions, {"backend": "torch", "half_partial": True}, restoring=True)
    assert "or choose '--backend " in caught.value.hint


def test_a_qualifier_that_has_no_such_option(lion):
    error = refused(TrainOptions, {"optimizer": "lion", "lr_schedule.beta2": 0.5})
    assert "unknown option 'lr_schedule.beta2'" in error.message
    error = refused(TrainOptions, {"colour.beta2": 0.5})
    assert "unknown option 'colour.beta2'" in error.message


# -- what is not selected ------------------------------------------------------------------------


@pytest.mark.parametrize(("options_class", "given", "message", "hint"), [
    (RunOptions, {"backend": "torch", "dataloader_mode": "sync"},
     "'--dataloader-mode' is an option of backend poptorch; this run uses torch",
     "leave it out, or choose '--backend poptorch'"),
    (RunOptions, {"backend": "torch", "half_partials": True},
     "'--half-partials' is an option of backends popart, poptorch; this run uses torch",
     "leave it out, or choose '--backend popart'"),
    (RunOptions, {"backend": "torch", "spinning": False},
     "'--no-spinning' is an option of backend onnxruntime (inference only); this run uses torch",
     "leave it out, or choose '--backend onnxruntime'"),
    (TrainOptions, {"optimizer": "adam", "--nesterov": True},
     "'--nesterov' is an option of optimizers sgd, sgd_combined; this run uses adam",
     "leave it out, or choose '--optimizer sgd'"),
    (TrainOptions, {"beta2": 0.5},
     "'--beta2' is an option of optimizers adam, adamw, lamb; this run uses sgd",
     "leave it out, or choose '--optimizer adam'"),
    (RunOptions, {"annotations": "a.json"},
     "'--annotations' is an option of dataset coco; this run uses real", "'--data coco'"),
    (ExportOptions, {"model": "resnet18", "groupnorm_group_num": 4},
     "'--groupnorm-group-num' is an option of norm-layer group; this run uses batch",
     "'--normlayer group'"),
    (RunOptions, {"momentum": 0.5}, "'--momentum' is an option of optimizers ", "leave it out"),
    (TrainOptions, {"optimizer.lr_decay": 0.1}, "unknown option 'optimizer.lr_decay'", ""),
    (TrainOptions, {"lr_schedule": "cosine", "lr_schedule.lr_decay": 0.1},
     "'--lr-schedule.lr-decay' is an option of lr-schedules ", "leave it out, or choose"),
])
def test_the_owners_of_an_option_are_named(options_class, given, message, hint):
    error = refused(options_class, given)
    assert error.message.startswith(message)
    assert hint in error.hint
    assert error.exit_code == 2


def test_an_owner_that_is_installed_is_suggested(monkeypatch):
    pytest.importorskip("onnxruntime")
    for module in ("ncnn", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    error = refused(RunOptions, {"backend": "torch", "requests": 2})
    assert error.message == ("'--requests' is an option of backends ncnn, onnxruntime, openvino "
                             "(inference only); this run uses torch")
    assert error.hint == "leave it out, or choose '--backend onnxruntime'"


def test_third_parties_that_own_an_option_are_named(lion):
    error = refused(TrainOptions, {"sharpness": 2})
    assert error.message == "'--sharpness' is an option of optimizer lion; this run uses sgd"
    assert error.hint == "leave it out, or choose '--optimizer lion'"
    error = refused(TrainOptions, {"backend": "abacus", "beads": 3})
    assert error.message.startswith(
        "'--beads' is an option of backend abacus (inference only); this run uses abacus")
    assert error.hint == "leave it out"
    options = build(RunOptions, {"backend": "abacus", "beads": 3})
    assert options.plugins.value("beads") == 3


def test_several_options_are_all_named_by_owner():
    error = refused(TrainOptions, Source(
        {"optimizer": "adam", "momentum": 0.5, "lr_power": 2, "nesterov": True},
        {"lr_power": "p.yaml, line 3"}))
    assert error.message == (
        "'--momentum' is an option of optimizers rmsprop, rmsprop_tf, sgd, sgd_combined; "
        "'--lr-power' (p.yaml, line 3) is an option of lr-schedule polynomial; "
        "'--nesterov' is an option of optimizers sgd, sgd_combined; this run uses adam, cosine")
    assert error.hint == "leave them out"


@pytest.mark.parametrize("given", [
    {"backend": "torch", "half_partial": False}, {"backend": "torch", "prefetch_depth": None},
    {"backend": "torch", "available_memory_proportion": []}, {"beta2": 0.999}, {"lr_power": 1},
    {"backend": "torch", "half-partials": "no"}, {"optimizer.nesterov": False}])
def test_a_value_that_is_the_default_is_dropped(given):
    kind = TrainOptions
    assert build(kind, given) == build(kind, {name: value for name, value in given.items()
                                              if name == "backend"})


def test_the_last_source_decides_what_is_refused():
    profile = Source({"half_partial": True}, {"half_partial": "p.yaml, line 1"})
    error = refused(RunOptions, profile, {"backend": "torch"})
    assert error.message.endswith("this run uses torch (p.yaml, line 1)")
    assert "to run the profile without, add '--no-half-partial'" in error.hint
    for negation in ({"half_partial": False}, {"half-partials": "off"}):
        build(RunOptions, profile, {"backend": "torch", **negation})
    refused(RunOptions, {"half_partial": False}, {"half_partials": True, "backend": "torch"})


# -- unknown options -----------------------------------------------------------------------------


@pytest.mark.parametrize(("options_class", "spelling", "close"), [
    (TrainOptions, "momentun", "momentum"), (TrainOptions, "lr-epoch-decai", "lr-epoch-decay"),
    (RunOptions, "num_io_tile", "num-io-tiles"), (RunOptions, "half_partialz", "half-partial"),
    (TrainOptions, "sharpnes", "sharpness"), (RunOptions, "bach_size", "batch-size"),
    (ExportOptions, "norm_epsilon", "norm-eps")])
def test_close_matches_are_of_all_owners(lion, options_class, spelling, close):
    error = refused(options_class, Source({spelling: 1}, {spelling: "p.yaml, line 2"}))
    assert error.message == f"unknown option {spelling!r} (p.yaml, line 2)"
    assert f"'{close}'" in error.hint


def test_what_is_like_nothing_is_answered_with_help():
    error = refused(TrainOptions, {"xyzzyxyzzy": 1})
    assert error.hint == "the command's '--help' lists its options"


def test_built_in_options_import_no_third_party(fake_distribution):
    fake_distribution("loud", {"loud.py": "raise SystemExit('imported')"}, {"loud": "loud"})
    options = build(TrainOptions, {"optimizer": "lamb", "beta2": 0.5, "lr_schedule": "polynomial",
                                   "lr_power": 2, "half_partial": False})
    assert options.plugins.value("lr_power") == 2.0
    assert "loud" not in sys.modules


# -- two spellings of one option -----------------------------------------------------------------


@pytest.mark.parametrize("given", [
    {"groupnorm_group_num": 4, "norm_groups": 4}, {"norm_num_groups": 4, "norm-groups": 8},
    {"groupnorm_group_num": 4, "normlayer.groupnorm_group_num": 4}])
def test_two_spellings_in_one_source_are_refused(given):
    first, second = given
    error = refused(TrainOptions, Source({"normlayer": "group", **given},
                                         {second: "p.yaml, line 2"}))
    assert error.message == (f"{second!r} and {first!r} are spellings of one option "
                             "(p.yaml, line 2)")
    assert error.hint == "keep one of them"


def test_two_spellings_of_an_option_that_is_not_selected():
    error = refused(TrainOptions, {"norm_num_groups": 32, "norm_groups": 32})
    assert "'norm_groups' and 'norm_num_groups' are spellings of one option" in error.message


def test_later_sources_win_in_any_spelling():
    options = build(TrainOptions, {"normlayer": "group", "norm_groups": 4},
                    {"normlayer.groupnorm_group_num": 8}, {"norm_num_groups": 16})
    assert options.plugins.value("groupnorm_group_num") == 16


# -- plugins whose options are broken ------------------------------------------------------------


@pytest.mark.parametrize(("name", "message"), [
    ("mutable", "dataclass 'Mutable' is not frozen"),
    ("plain", "field 'width' of 'Plain' is not declared with 'ipucnn.option'"),
    ("listed", "field 'width' of Listed is of type typing.List[int]"),
    ("refusing", "ValueError: never right"),
    ("common", "its option '--batch-size' is a common one ('--batch-size')"),
    ("commonspelling", "its option '--learning-rate' is a common one ('--lr')"),
    ("missing", "AttributeError"), ("nowhere", "No module named 'no_such_module_anywhere'"),
])
def test_a_plugin_whose_options_are_broken_fails_alone(fake_distribution, name, message):
    fake_distribution("broken-dist", {"broken_options.py": BROKEN}, {"b": "broken_options"})
    with pytest.raises(PluginError) as caught:
        build(TrainOptions, {"optimizer": name})
    assert message in caught.value.message
    assert "broken-dist" in caught.value.message
    assert build(TrainOptions, {"optimizer": "good", "width": 2}).plugins.value("width") == 2
    assert build(TrainOptions, {"momentum": 0.5}).plugins.value("momentum") == 0.5


def test_broken_options_do_not_stop_the_search_for_owners(fake_distribution):
    fake_distribution("broken-dist", {"broken_options.py": BROKEN}, {"b": "broken_options"})
    error = refused(TrainOptions, {"width": 2})
    assert error.message.startswith("'--width' is an option of optimizer")
    assert "good" in error.message


def test_a_check_of_a_plugin_that_raises_an_error_of_ipucnn(lion):
    from ipucnn import IpucnnError

    with pytest.raises(IpucnnError, match="too sharp"):
        build(TrainOptions, {"optimizer": "lion", "sharpness": 11})


# -- deferred options ----------------------------------------------------------------------------


def test_options_of_backends_wait_until_auto_has_chosen():
    options = build(RunOptions, {"half_partials": "yes", "device": "cpu"})
    assert options.execution.backend == "auto"
    assert options.plugins.deferred == {"half_partial": True, "device": "cpu"}
    assert options.plugins.value("half_partial") is True
    assert options.as_dict()["half_partial"] is True
    assert build(RunOptions, {"half_partial": True}, {"half_partial": False}
                 ).plugins.deferred == {}
    assert "too small" in refused(RunOptions, {"prefetch_depth": 0}).message
    saved = build(RunOptions, {"device": "cpu"}).as_dict()
    assert build(RunOptions, saved, {"backend": "torch"}).plugins.of("backend", "torch").device \
        == "cpu"


def test_options_for_another_job_are_not_deferred():
    error = refused(RunOptions, {"auto_loss_scaling": True})
    assert error.message == ("'--auto-loss-scaling' is an option of backends popart, poptorch "
                             "(training only); this run uses '--backend auto'")


def test_what_is_stored_decides_about_what_is_not_given():
    options = build(ValidateOptions, {"compile": False, "half_partial": True})
    assert options.overrides() == {"compile": False, "half_partial": True}
    options = build(ValidateOptions, {"backend": "torch", "device": "cpu"})
    assert options.overrides() == {"backend": "torch", "device": "cpu"}
    options = build(ValidateOptions, {"data": "coco", "annotations": "a.json"})
    assert options.overrides() == {"data": "coco", "annotations": "a.json"}
    assert "this run uses torch" in refused(
        ValidateOptions, {"backend": "torch", "half_partial": True}).message
    assert build(ValidateOptions, {"prefetch_depth": None}).overrides() == {
        "prefetch_depth": None}
    restored = build(RestoreOptions, {"optimizer": "adam", "beta1": 0.5})
    assert restored.plugins.value("beta1") == 0.5


def test_a_third_partys_option_waits_for_what_is_stored(lion):
    assert build(ValidateOptions, {"beads": "3"}).overrides() == {"beads": 3}
    assert "too small" in refused(ValidateOptions, {"beads": 0}).message
    assert "this run uses torch" in refused(ValidateOptions, {"backend": "torch", "beads": 3}
                                            ).message


@pytest.mark.parametrize("given", [
    {"annotations": "a.json"}, {"data": "coco", "annotations": "a.json"}])
def test_a_conversion_recognises_the_format_later(given):
    options = build(ConvertOptions, {"target": "there", **given})
    coco = registry().get_typed(DatasetSpec, "coco")
    assert settled(options.plugins, "dataset", coco, registry()).annotations == "a.json"
    with pytest.raises(UsageError) as caught:
        settled(options.plugins, "dataset", registry().get("dataset", "image_folder"), registry())
    assert caught.value.message == ("'--annotations' is an option of dataset coco; this is "
                                    "dataset image_folder")
    plain = build(ConvertOptions, {"target": "there", "annotations": None}).plugins
    assert settled(plain, "dataset", registry().get("dataset", "synthetic"), registry()) is None


# -- one plugin ----------------------------------------------------------------------------------


def test_options_of_one_plugin_by_name(lion):
    spec = registry().get_typed(OptimizerSpec, "lion")
    assert owned_by("optimizer", spec, {"edge": "4"}, registry()).value("sharpness") == 4
    with pytest.raises(UsageError) as caught:
        owned_by("optimizer", spec, {"sharpnes": 4}, registry())
    assert caught.value.message == "optimizer 'lion' has no option 'sharpnes'"
    assert "sharpness" in caught.value.hint
    imagenet = registry().get_typed(DatasetSpec, "imagenet")
    found = owned_by("dataset", imagenet, {"data_cache_size": "2K"}, registry())
    assert found.of("dataset", "webdataset").data_cache_size == 2000
    with pytest.raises(UsageError, match="optimizer 'sgd' has no option 'xyzzy'") as caught:
        owned_by("optimizer", registry().get("optimizer", "sgd"), {"xyzzy": 1}, registry())
    assert caught.value.hint == "options: momentum, dampening, nesterov"


def test_what_a_source_gives_by_name():
    given = [Given("--norm-groups", 4), Given("lr-decay", 2), Given("mystery", 3)]
    found = by_name(given, ("norm-layer", "lr-schedule"), registry())
    assert {name: item.value for name, item in found.items()} == {
        "groupnorm_group_num": 4, "lr_decay": 2, "mystery": 3}
    with pytest.raises(UsageError, match="are spellings of one option"):
        by_name([*given, Given("groupnorm_group_num", 4)], ("norm-layer",), registry())


def test_owners_in_words():
    optimizers = builtin_owners(["optimizer"], registry())
    text = in_words([*optimizers, *builtin_owners(["norm-layer"], registry())], most=3)
    assert text == "optimizers adam, adamw, 5 more; norm-layers batch, group"


def test_finding_owners_imports_no_torch():
    code = ("import sys; from ipucnn.core.options.building import build; "
            "from ipucnn.training.options.train_options import TrainOptions; "
            "from ipucnn.core.errors import UsageError\n"
            "for given in ({'momentum': .5}, {'num_io_tiles': 64}, {'momentun': 1}):\n"
            "    try: build(TrainOptions, given)\n"
            "    except UsageError as error: print(error)\n"
            "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
