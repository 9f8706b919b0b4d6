"""Pages and texts from files: their content, and refused files."""

from __future__ import annotations

import json
import re

import pytest
from made_runs import HOSTILE, evidence, training

from ipucnn.__main__ import invoke
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.names import cells
from ipucnn.reports.charts import bars, exact_label, ticks
from ipucnn.reports.evidence import Evidence
from ipucnn.reports.job import read_runs, report
from ipucnn.reports.text_report import BLOCKS, sparkline, text_of

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def test_a_hostile_name_is_text_everywhere(tmp_path):
    page = report([str(training(tmp_path / "run"))]).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert" in page
    assert not CONTROL.search(page)
    assert "script-src 'sha256-" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_a_page_names_what_differs_between_runs(tmp_path):
    places = [str(training(tmp_path / name, lr=lr)) for name, lr in (("a", 0.1), ("b", 0.5))]
    out = report(places, str(tmp_path / "both.html")).read_text()
    rows = dict(re.findall(r'<tr( class="differs")?><th scope="row">(\w+)</th><td>', out)
                [::-1])  # by class
    assert rows[' class="differs"'] == "lr"
    assert out.count('class="line ') >= 12
    text = text_of(read_runs(places))
    assert "lr: 0.1 | 0.5" in text
    assert "epoch:" not in text


def test_runs_of_one_name_are_distinguished(tmp_path):
    places = [str(training(tmp_path / one / "run")) for one in "ab"]
    assert [run.name for run in read_runs(places)] == places
    assert [run.name for run in read_runs(places[:1] * 2)] == [
        f"{places[0]} (1)", f"{places[0]} (2)"]
    other = str(training(tmp_path / "other"))
    assert [run.name for run in read_runs([*places, other])] == [*places, "other"]


def test_options_of_another_kind_are_no_difference(tmp_path):
    places = [str(training(tmp_path / name)) for name in "ab"] + [str(tmp_path / "p.json")]
    (tmp_path / "p.json").write_text(json.dumps(
        {"format": "ipucnn.plan/1", "options": {"lr": 0.1, "splits": "layer2"}}))
    text = text_of(read_runs(places))
    assert "The runs have the same options." in text
    (tmp_path / "b" / "training.json").write_text(json.dumps({"options": {"lr": 0.1}}))
    assert "\nepoch: 5 | (none) | (none)\n" in text_of(read_runs(places))


def test_the_cause_of_a_failure_is_shown(tmp_path):
    place = str(training(tmp_path / "run", status="failed", error="the loss of step 1 is nan"))
    assert "the loss of step 1 is nan" in report([place]).read_text()
    assert "error                  the loss of step 1 is nan" in text_of(read_runs([place]))


def test_damaged_documents_of_a_training_are_left_out(tmp_path):
    folder = training(tmp_path / "run")
    for name in ("training.json", "validation.json"):
        (folder / name).write_bytes(b"")
    page = report([str(folder)]).read_text()
    assert page.count("what it holds is left out") == 2
    assert ">Accuracy" in page


def test_a_validation_shows_every_checkpoint(tmp_path):
    place = tmp_path / "v.json"
    place.write_text(json.dumps({"format": "ipucnn.validate/1", "validations": [
        {"checkpoint": f"a/model_{epoch}.pt", "epoch": epoch, "weights": "raw", "images": 9,
         "loss": 1.5 / epoch, "top1": 40.0 + epoch, "top5": 90.0} for epoch in (1, 2, 3)]}))
    page = report([str(place)]).read_text()
    assert "<td>model_1.pt</td>" in page
    assert ">41.00 %</td>" in page
    assert [title in page for title in (">Loss", ">Accuracy", ">Learning rate")] == [
        True, True, False]
    assert "another version" not in page
    place.write_text(place.read_text().replace("validate/1", "validate/2"))
    assert "the format ipucnn.validate/2 of another version" in report([str(place)]).read_text()
    assert re.search(r"model_2.pt +2 +raw +9 +0.7500 +42.00 %", text_of(read_runs([str(place)])))


def test_a_short_hostile_name_is_text_too(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"path": "a\u202e\udce9.jpg", "class_1": 0,
                                                  "name_1": "cat", "probability_1": 0.9}]))
    page = report([str(tmp_path / "p.json")]).read_text(encoding="utf-8")
    assert r"<bdi>a\u202e\udce9.jpg</bdi>" in page


def test_images_of_several_labels_are_not_counted_by_label(tmp_path):
    (tmp_path / "p.csv").write_text("path,class_1,name_1,probability_1,labels\n"
                                     "a.jpg,0,cat,0.9,cat|dog\nb.jpg,1,dog,0.8,cat\n")
    page = report([str(tmp_path / "p.csv")]).read_text()
    assert "<strong>50.00 <small>%</small></strong><span>top-1</span>" in page
    assert '<bdi>cat</bdi></th><td class="number">1</td></tr>' in page  # images predicted


def test_names_of_classes_keep_to_themselves(tmp_path):
    arabic, long = "\u0642\u0637\u0629", "x" * 180
    page = report([str(training(tmp_path / "run", names=(arabic, long, "dog")))]).read_text()
    assert f"<strong><bdi>{arabic}</bdi></strong>" in page
    assert f'<bdi title="{long}">{"x" * 39}\u2026</bdi>' in page
    assert re.search(r"<td><bdi>[^<]+</bdi> \(\d+\)</td>", page)


def test_the_ninth_run_is_not_drawn_as_the_first(tmp_path):
    places = [str(training(tmp_path / str(number), epochs=2)) for number in range(9)]
    page = report(places, str(tmp_path / "all.html")).read_text()
    assert 'class="line c0"' in page
    assert 'class="line c0 again"' in page
    assert page.count('class="key c0 again"></span>8') > 1  # in the table, and in legends


@pytest.mark.parametrize("values", [(2.302585, 2.302585 + 1e-14), (1e-30, 8e-31), (0.0, 0.0),
                                    (-1e9, -1e9 + 1e-7), (1e20, 3e20), (2e16, 2e16),
                                    (-3e15, -3e15), (0.5, 0.7)])
def test_axes_hold_values_of_any_size(values):
    low, high = min(values), max(values)
    places = ticks(low, high)
    assert places == sorted(set(places))
    assert 2 <= len(places) <= 8
    assert places[0] <= low <= high <= places[-1]


@pytest.mark.parametrize("values", [(2.302, 2.3035), (99.1, 99.3), (301.25, 303.75), (1234, 1236),
                                    (12.0, 13.0), (1e-5, 1.2e-4), (1e5, 1.3e5), (0.0, 3e6)])
def test_labels_of_axes_are_exact(values):
    places = ticks(*values)
    assert [float(exact_label(place).replace(",", "")) for place in places] == places


def test_a_few_whole_epochs_have_whole_ticks(tmp_path):
    page = report([str(training(tmp_path / "run", epochs=2))]).read_text()
    assert re.findall(r'y="222.0" class="middle">([^<]*)<', page)[:2] == ["1", "2"]


def test_a_killed_training_is_shown_without_what_it_lacks(tmp_path):
    folder = training(tmp_path / "run")
    (folder / "training.json").unlink()
    (folder / "validation.json").unlink()
    (folder / "options.yaml").write_text("lr: 0.125\n")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "ep')
    (run,) = read_runs([str(folder)])
    assert run.part("options") == {"lr": 0.125}
    assert len(run.notes) == 2
    assert "0.125" in report([str(folder)]).read_text()
    # the only training below a folder
    assert read_runs([str(tmp_path)])[0].place == str(folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "training.json").write_text('{"model": "resnet18"}')  # without the logger `files`
    assert read_runs([str(tmp_path)])[0].place == str(folder)


def test_text_has_80_columns_and_curves(tmp_path):
    text = text_of(read_runs([str(training(tmp_path / "run", epochs=40))]))
    assert max(map(len, text.splitlines())) <= 80 or "/" in max(text.splitlines(), key=len)
    assert re.search(f"training +[{BLOCKS}]+ +1.5 to 0.0732, best 0.0732 at 40", text)
    assert "Most frequent mistakes" in text
    assert not CONTROL.search(text)


@pytest.mark.parametrize("width", [40, 60])
def test_text_fits_narrow_terminals(tmp_path, width):
    text = text_of(read_runs([str(training(tmp_path / "run", epochs=40))]), width)
    assert [line for line in text.splitlines() if cells(line) > width and "/" not in line] == []
    assert re.search(f"training +[{BLOCKS}]+$", text, re.MULTILINE) or width > 40
    both = [str(training(tmp_path / name, lr=lr)) for name, lr in (("a", 0.1), ("b", 0.5))]
    text = text_of(read_runs(both), width)
    assert [line for line in text.splitlines() if cells(line) > width and "/" not in line] == []


def test_bars_have_room_beside_long_names():
    for length in (3, 45, 90):
        drawn = str(bars([("x" * length, 50.0, 100.0), ("y", 100.0, None)], "images/s", "rates"))
        widths = [float(width) for width in re.findall('<rect[^>]* width="([^"]*)"', drawn)]
        assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
        assert widths[1] >= 100
        right = float(re.search('viewBox="0 0 ([0-9]+)', drawn).group(1))
        begin = float(re.search('<rect[^>]* x="([^"]*)"', drawn).group(1))
        assert begin + widths[1] + 50 <= right


def test_wide_names_are_aligned(tmp_path):
    names = ("\u5199\u771f\u732b", "dog", "horse")
    lines = text_of(read_runs([str(training(tmp_path / "run", names=names))])).splitlines()
    begin = lines.index("Classes") + 1
    ends = {cells(re.match(r"  \S+ +\S+ +", line).group()) for line in lines[begin:begin + 4]}
    assert len(ends) == 1


def test_text_names_no_best_across_added_classes(tmp_path):
    folder = training(tmp_path / "run", epochs=3)
    metrics = folder / "metrics.jsonl"
    with open(metrics, "a") as file:
        for epoch, top1, classes in ((3, 90.0, 2), (4, 40.0, 8)):
            file.write(json.dumps({"kind": "validation", "weights": "raw", "epoch": epoch,
                                   "top1": top1, "classes": classes}) + "\n")
    assert ", best " not in text_of(read_runs([str(folder)]))


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 80, BLOCKS) == BLOCKS
    assert sparkline([5.0], 10, "_#") == "_"
    assert sparkline(range(1000), 8, "_.-=+*#@") == "_.-=+*#@"


@pytest.mark.parametrize(("content", "message"), [
    ("", "is not a JSON file"), ("[1]", "no list of rows"),
    ('[{"path": "x"}]', "no rows with path"), ("{}", "not a result of ipucnn"),
    ('{"format": "ipucnn.doctor/1"}', "not a result of ipucnn"),
    ('{"format": "ipucnn.run/1", "evidence": {"classes": 7}}', "unexpected content"),
    ('{"format": "ipucnn.run/1", "evidence": {"classes": ["a"], "confusion": [[0, 3, 1]], '
     '"calibration": []}}', "unexpected content"),
    ('{"format": "ipucnn.plan/1", "pipeline": {"stages": [{}]}}', "unexpected content"),
    ('{"format": "ipucnn.plan/1", "x": ' + "9" * 99 + "}", "not a JSON file"),
    ("[" * 100_000, "nested too deeply")])
def test_other_files_are_one_line(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        report([str(tmp_path / "x.json")])
    assert not (tmp_path / "x.html").exists()


def test_text_of_other_content_is_one_line(tmp_path, capsys):
    place = tmp_path / "x.json"
    place.write_text('{"format": "ipucnn.run/1", "evidence": {"classes": ["a"]}}')
    assert invoke(["report", "--text", str(place)]) == 1
    assert capsys.readouterr().err.startswith(f"error: '{place}' has unexpected content")


def test_values_beyond_any_loss_are_not_drawn(tmp_path):
    folder = training(tmp_path / "run")
    with open(folder / "metrics.jsonl", "a") as file:
        for loss in ("1e308", "-1e308"):
            file.write(f'{{"kind": "train", "epoch": 1, "update": 1, "loss": {loss}}}\n')
    assert "1e308" not in text_of(read_runs([str(folder)]))
    assert "1e308" not in report([str(folder)]).read_text(encoding="utf-8")


def test_what_cannot_be_named(tmp_path):
    with pytest.raises(DataError, match="no file or folder"):
        report([str(tmp_path / "none")])
    with pytest.raises(DataError, match=r"cannot read 'x+'|no file or folder"):
        report(["x" * 300])
    with pytest.raises(DataError, match="contains no training"):
        report([str(tmp_path)])
    training(tmp_path / "a"), training(tmp_path / "b")
    with pytest.raises(DataError, match="contains 2 trainings"):
        report([str(tmp_path)])
    with pytest.raises(UsageError, match="no known format"):
        report([str(tmp_path / "a")], str(tmp_path / "x.pdf"))
    with pytest.raises(UsageError, match="too many"):
        report(["x"] * 101)


def test_predictions_with_a_byte_order_mark(tmp_path):
    (tmp_path / "p.csv").write_text("path,class_1,name_1,probability_1\na.jpg,0,cat,0.9\n",
                                    encoding="utf-8-sig")
    assert "cat" in report([str(tmp_path / "p.csv")]).read_text(encoding="utf-8")


def test_a_page_of_someone_else_is_not_replaced(tmp_path):
    folder = training(tmp_path / "run")
    (folder / "report.html").write_text("<p>my own notes")
    with pytest.raises(UsageError, match="not a report of ipucnn"):
        report([str(folder)])
    assert (folder / "report.html").read_text() == "<p>my own notes"
    (folder / "report.html").unlink()
    assert report([str(folder)]) == report([str(folder)])


def test_a_result_with_evidence_of_many_classes(tmp_path):
    names = [f"class {number}" for number in range(1000)]
    (tmp_path / "r.json").write_text(json.dumps({
        "format": "ipucnn.run/1", "model": "m", "dataset": HOSTILE.encode(
            "utf-8", "replace").decode(), "images": 2000, "latency_ms": {
                "p50": 1.0, "p90": 2.0, "p99": 30.0},
        "evidence": {**evidence(names, 2000), "latencies_ms": [1.0] * 99 + [100.0]}}))
    page = report([str(tmp_path / "r.json")])
    assert page.stat().st_size < 5e6
    text = page.read_text()
    assert re.search(r"of \d+ classes with the most mistakes", text)
    assert "p99 30" in text


def test_evidence_of_a_card_with_one_class(tmp_path):
    import torch

    found = Evidence(["only"])
    found.add([0, 1], torch.ones(2, 1), torch.zeros(2, dtype=torch.int64))
    (tmp_path / "r.json").write_text(json.dumps(
        {"format": "ipucnn.run/1", "evidence": found.reduced(str)}))
    assert "100.0" in report([str(tmp_path / "r.json")]).read_text()
