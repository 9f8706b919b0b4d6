"""Each mistake in `planted/` is found by the check that is for it, and by no other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.models.card import ModelCard
from ipucnn.testing import SUITES, check_plugin
from ipucnn.testing.importing import import_checks
from ipucnn.testing.reports import Wishes, check_all, failures
from ipucnn.testing.suite import checks

PLANTED = Path(__file__).parent / "planted"
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

MISTAKES = {
    "adds_one_sample": "test_eval_is_deterministic",
    "returns_probabilities": "test_outputs_are_logits",
    "returns_half_precision": "test_outputs_are_logits",
    "sets_a_seed": "test_it_sets_no_random_seed",
    "hides_state": "test_state_dict_round_trip",
    "contradicts_its_weights": "test_preprocessing_is_that_of_the_weights",
    "weights_without_digest": "test_published_weights_load",
    "imports_torch": "test_import_needs_no_heavy_package",
    "spends_time": "test_import_is_fast",
    "changes_the_folder": "test_import_changes_no_setting",
    "writes_to_the_descriptor": "test_import_writes_nothing",
    "refuses_its_defaults": "test_options_are_valid",
    "depends_on_the_workers": "test_images_do_not_depend_on_the_workers",
    "labels_beyond_its_classes": "test_labels_count_the_classes",
    "order_repeats_images": "test_order_is_a_permutation",
    "raises_in_a_row": "test_records_a_whole_training",
    "loses_an_exit_code": "test_start_returns_the_exit_code_of_a_rank",
    "counts_from_one": "test_recognises_its_processes",
    "ignores_mixup": "test_training_with_mixup",
    "forgets_the_optimizer": "test_training_resumes_exactly",
    "ignores_the_rate": "test_learning_rate_of_a_group_is_obeyed",
    "saves_no_state": "test_state_dict_round_trip",
    "counts_its_calls": "test_it_is_a_pure_function",
    "adds_up_losses": "test_micro_batches_are_averaged",
    "mixes_the_batch": "test_samples_are_independent_unless_it_says_otherwise",
}
ALSO = {
    "raises_in_a_row": {"test_records_a_restored_training",
                        "test_leaves_options_and_random_numbers_alone"},
    "adds_up_losses": {"test_mixed_labels_count_by_their_shares"},
}
PLUGIN_WITH_A_BAD_RECORD = """
import ipucnn

@ipucnn.hookimpl
def ipucnn_lr_schedules():
    yield ipucnn.ScheduleSpec(name="other", summary="s", target=lambda epoch: 1.0)
    record = ipucnn.ScheduleSpec(name="planted", summary="s", target=len)
    object.__setattr__(record, "summary", "")
    yield record
"""
IMPORTS = [name for name, check in MISTAKES.items() if check.startswith("test_import")]


@pytest.fixture
def copied(tmp_path, isolated_registry):
    """Copy a planted plugin to a folder of its own; give its path and its registry."""

    def copy(name):
        path = tmp_path / f"{name}.py"
        shutil.copyfile(str(PLANTED / f"{name}.py"), str(path))
        registry = isolated_registry(path)
        if name == "contradicts_its_weights":
            model = registry.make(registry.get("model", "planted"), num_classes=7)
            torch.save({"model_state_dict": model.state_dict(), "card": ModelCard(
                "planted", 7, preprocessing=Preprocessing(input_size=32)).as_plain()},
                str(tmp_path / "planted.pt"))
        return path, registry

    return copy


@pytest.mark.parametrize("name", [name for name in MISTAKES if name not in IMPORTS])
def test_a_mistake_is_found(copied, name):
    _, registry = copied(name)
    (row,) = [row for row in registry.rows() if row.name == "planted"]
    settings = {} if row.kind != "backend" else {"optimizers": ("sgd",), "exclude": {
        check: "it takes long" for check in checks(SUITES["backend"]) if check != MISTAKES[name]}}
    results = check_plugin(row.kind, "planted", registry, **settings)
    found = {check for check, result in results.items()
             if result != "passed" and not result.startswith("skipped")}
    assert MISTAKES[name] in found
    if name != "refuses_its_defaults":  # no check can call the target
        assert found == {MISTAKES[name]} | ALSO.get(name, set())


@pytest.mark.parametrize("name", IMPORTS)
def test_a_mistake_at_import_is_found(copied, tmp_path, monkeypatch, name):
    path, registry = copied(name)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "torch.py").write_text("")  # the real one takes seconds
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    limit = {"seconds": 0.5} if name == "spends_time" else {}
    results = import_checks(str(path), registry, **limit)
    assert {check for check, result in results.items()
            if result != "passed" and not result.startswith("skipped")} == {MISTAKES[name]}


def test_a_changed_setting_of_a_library_is_found(copied):
    path, registry = copied("changes_the_folder")
    path.write_text(path.read_text().replace(
        "os.chdir(tempfile.gettempdir())",
        "from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True"))
    assert import_checks(str(path), registry)["test_import_changes_no_setting"].endswith(
        "changes Pillow's reading of truncated images")


def test_the_command_reports_them(cli, copied):
    path, _ = copied("counts_its_calls")
    done = cli("check-plugin", path, "lr-schedule:cosine", "--exclude",
               "test_it_trains_at_all=it is flat")
    assert done.code == 1
    counts, others = done.out.split("\n\n")
    rows = {line.split()[0]: line.split()[1:] for line in counts.splitlines()[1:]}
    assert rows["lr-schedule/planted"] == ["6", "1", "1", "0"]
    assert rows["lr-schedule/cosine"] == ["7", "0", "1", "0"]
    assert rows[f"import/{path}"] == ["5", "0", "0", "0"]
    assert [line.split()[0] for line in others.splitlines()[1:]] == [
        "failed", "excluded", "excluded"]
    assert "the factor depends on earlier calls" in others
    assert others.count("it is flat") == 2


def test_a_file_may_be_named_with_others(copied):
    path, _ = copied("refuses_its_defaults")
    results = check_all([str(path), "optimizer:sgd", "constant"], Wishes(
        options={"momentum": "0.5"}))
    assert set(results) == {f"import/{path}", "lr-schedule/planted", "optimizer/sgd",
                            "lr-schedule/constant"}
    assert {plugin for plugin, _, _ in failures(results)} == {"lr-schedule/planted"}


def test_equal_names_in_two_files_are_checked_both(cli, tmp_path):
    paths = [tmp_path / place / "mine.py" for place in "ab"]
    for path, mistake in zip(paths, ("counts_its_calls", "refuses_its_defaults")):
        path.parent.mkdir()
        shutil.copyfile(str(PLANTED / f"{mistake}.py"), str(path))
    done = cli("check-plugin", *paths, "--json")
    assert done.code == 1
    own = [name for name in json.loads(done.out) if not name.startswith("import/")]
    assert [bool(re.fullmatch("lr-schedule/mine-[0-9a-f]{8}:planted", name))
            for name in own] == [True, True]
    paths[1].write_text(PLUGIN_WITH_A_BAD_RECORD)
    results = check_all(list(map(str, paths)), Wishes())
    assert [found["loads"][:6] for name, found in results.items() if "loads" in found] == ["failed"]
    assert "test_it_is_a_pure_function" in results["lr-schedule/planted"]


@pytest.mark.parametrize(("words", "message"), [
    (["--set", "depth=3"], "none of the plugins has an option 'depth'"),
    (["--set", "depth"], "'--set depth' has no value"),
    (["--exclude", "test_typo=why"], "no suite has a check 'test_typo'"),
])
def test_wrong_requests_are_refused(cli, words, message):
    done = cli("check-plugin", "lr-schedule:constant", *words)
    assert done.code == 2
    assert message in done.err


def test_unknown_names_are_refused(cli):
    done = cli("check-plugin", "no-such-thing")
    assert done.code == 2
    assert "there is no plugin, distribution or file 'no-such-thing'" in done.err
    done = cli("check-plugin", "no_such_file.py")
    assert done.code == 2
    assert "no_such_file.py" in done.err


def test_every_mistake_is_documented():
    documented = dict(re.findall(r"^\| `(\w+)` \| .* \| `(test_\w+)` \|$", PAGE.read_text(),
                                 re.MULTILINE))
    assert documented == MISTAKES
    assert {path.stem for path in PLANTED.glob("*.py")} == set(MISTAKES)
    assert set(SUITES) == {"model", "dataset", "norm-layer", "optimizer", "lr-schedule", "backend",
                           "loss", "logger", "launcher"}
