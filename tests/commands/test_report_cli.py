"""Reports, contact sheets and activation maps as a user meets them."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use

TINY = ["--model", "resnet8-cifar", "--data-dir", "pictures", "--input-size", "32",
        "--precision", "full", "--batch-size", "4", "--progress", "off"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Real JPEG files, and a short training of theirs in `saved`."""
    folder = tmp_path_factory.mktemp("work")
    before = Path.cwd()
    os.chdir(str(folder))
    assert invoke(["data", "shapes", "--out", "pictures", "--per-class", "4", "--size", "40",
                   "--validation-per-class", "3"]) == 0
    assert invoke(["train", *TINY, "--epoch", "2", "--checkpoint-path", "saved", "--ema-decay",
                   "0.5"]) == 0
    use(None)
    os.chdir(str(before))
    return folder


@pytest.fixture(autouse=True)
def _inside(work, monkeypatch):
    monkeypatch.chdir(work)


def test_a_training_writes_its_report(work):
    page = Path("saved/report.html").read_text()
    assert "Training: resnet8-cifar on image_folder" in page
    for title in ("Loss", "Accuracy", "Learning rate", "Throughput", "Waiting for data",
                  "Confusion matrix", "Calibration", "Model card", "Options", "Environment"):
        assert title in page, title
    assert page.count("data:image/jpeg;base64,") >= 24
    training = json.loads(Path("saved/training.json").read_text())
    assert training["status"] == "completed"
    assert training["card"]["class_names"] == sorted(os.listdir("pictures/train"))
    validation = json.loads(Path("saved/validation.json").read_text())
    assert (validation["weights"], validation["epoch"]) == ("ema", 2)
    last = json.loads(Path("saved/metrics.jsonl").read_text().splitlines()[-1])
    evidence = validation["evidence"]
    assert 100 * evidence["correct"] / evidence["images"] == pytest.approx(last["top1"])


def test_a_failed_training_states_why(cli, tmp_path):
    assert cli("train", *TINY, "--epoch", "1", "--lr", "1e30", "--optimizer", "sgd",
               "--checkpoint-path", tmp_path)[0] == 1
    assert re.search(r"the loss of step \d+ is (nan|inf)", (tmp_path / "report.html").read_text())
    assert "the loss of step" in cli("watch", tmp_path)[1]


def test_no_report_is_written_where_none_is_wanted(cli, tmp_path):
    code, _, err = cli("train", *TINY, "--epoch", "1", "--iterations", "1", "--no-report",
                       "--checkpoint-path", tmp_path / "c")
    assert code == 0, err
    assert not (tmp_path / "c" / "report.html").exists()
    assert cli("report", tmp_path / "c")[1] == f"{tmp_path / 'c' / 'report.html'}\n"
    assert (tmp_path / "c" / "report.html").exists()


def test_a_run_and_a_validation_write_theirs(cli, tmp_path):
    place = tmp_path / "page.html"
    code, _, err = cli("run", "--weights", "saved", "--data-dir", "pictures/validation",
                       "--report", place, "--backend", "torch", "--progress", "off", "--result",
                       tmp_path / "run.json", "--predictions", tmp_path / "p.csv")
    assert code == 0, err
    page = place.read_text()
    for title in ("Latency", "Confusion matrix", "Classes", "Calibration", "Model card"):
        assert title in page, title
    assert page.count("data:image/jpeg;base64,") >= 24
    # the same from its result, and what predictions say of it
    code, out, _ = cli("report", tmp_path / "run.json", tmp_path / "p.csv", "--out",
                       tmp_path / "both.html", "--json")
    assert (code, json.loads(out)["path"]) == (0, str(tmp_path / "both.html"))
    document = json.loads((tmp_path / "run.json").read_text())
    with open(tmp_path / "p.csv") as file:
        rows = list(csv.DictReader(file))
    right = sum(row["label"] == row["class_1"] for row in rows)
    assert document["evidence"]["correct"] == right
    assert f"{100 * right / 24:.2f} %" in (tmp_path / "both.html").read_text()
    assert len(document["evidence"]["latencies_ms"]) == 22  # of 24 calls, without warm-up
    code, _, err = cli("validate", "--weights", "saved/resnet8-cifar_image_folder_2.pt",
                       "--no-ema", "--report", place, "--progress", "off")
    assert code == 0, err
    assert "Validation: resnet8-cifar on image_folder" in place.read_text()
    assert "Confusion matrix" in place.read_text()


def test_evidence_is_not_on_standard_output(cli):
    out = cli("run", "--weights", "saved", "--data-dir", "pictures/validation", "--json",
              "--backend", "torch", "--progress", "off")[1]
    assert "evidence" not in json.loads(out)


def test_plans_and_benchmarks_have_pages(cli, tmp_path):
    assert cli("plan", "--model", "resnet18", "--pipeline-splits", "layer3", "--lr", "0.1",
               "--gradient-accumulation", "8", "--result", tmp_path / "plan.json")[0] == 0
    assert cli("data", "bench", "--data", "image_folder", "--data-dir", "pictures", "--samples",
               "8", "--batch-size", "4", "--iterations", "1", "--dataloader-worker", "1",
               "--result", tmp_path / "bench.json", "--progress", "off")[0] == 0
    for name, titles in (("plan", ("Pipeline stages", "layer3", "89 % of the time")),
                         ("bench", ("One thread, step by step", "1 worker"))):
        code, out, err = cli("report", tmp_path / f"{name}.json")
        assert code == 0, err
        page = Path(out.strip()).read_text()
        for title in titles:
            assert title in page, title


def test_text_instead_of_a_page(cli, tmp_path):
    code, out, err = cli("report", "saved", "--text")
    assert code == 0, err
    assert re.search(r"^top-1 +[\d.]+ %$", out, re.MULTILINE)
    assert "Loss\n  training" in out
    kept = json.loads(Path("saved", "training.json").read_text())
    kept["environment"]["command"] = ["/lib/ipucnn/__main__.py", "train"]  # python -m ipucnn
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    _, out, _ = cli("report", tmp_path / "kept.json", "--text")
    assert re.search(r"^command +ipucnn train$", out, re.MULTILINE)
    code, _, err = cli("report", "saved", "--text", "--out", tmp_path / "x.html")
    assert (code, "exclude each other" in err) == (2, True)
    code, _, err = cli("report", "missing")
    assert (code, err.splitlines()[0]) == (1, "error: there is no file or folder 'missing'")


def test_from_python(tmp_path):
    place = ipucnn.report("saved", tmp_path / "one.html")
    assert place == tmp_path / "one.html"
    result = ipucnn.run(weights="saved", data_dir="pictures/validation", backend="torch",
                        report=tmp_path / "run.html", progress=False)
    assert "Latency" in (tmp_path / "run.html").read_text()
    assert "evidence" not in result.as_dict()
    assert ipucnn.report(["saved", Path("saved")], tmp_path / "two.html").exists()


def test_a_contact_sheet_counts_and_shows_every_class(cli, tmp_path):
    code, out, err = cli("data", "show", "pictures", "--augmented", "--per-class", "2", "--out",
                         tmp_path / "sheet.html", "--input-size", "32", "--seed", "3")
    assert code == 0, err
    assert "--seed" not in err
    assert re.search(r"^star +4$", out, re.MULTILINE)
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8 * 2 * 4  # stored, and three random draws
    code, out, err = cli("data", "show", "pictures", "--split", "validation", "--out",
                         tmp_path / "sheet.png", "--json", "--seed", "3")
    assert json.loads(out)["classes"]["star"] == 3
    assert "note: '--seed' has no effect without '--augmented'" in err
    with Image.open(tmp_path / "sheet.png") as drawn:
        assert drawn.size[0] > 1000
    code, _, err = cli("data", "show", "pictures/train", "--split", "validation")
    assert (code, "leave '--split' out" in err, "--no-validation" in err) == (1, True, False)
    # a folder without classes, and a picture that cannot be read
    (tmp_path / "album").mkdir()
    Image.new("RGB", (60, 30), "green").save(tmp_path / "album" / "a.jpg")
    (tmp_path / "album" / "b.jpg").write_bytes(b"no picture")
    code, out, err = cli("data", "show", tmp_path / "album", "--out", tmp_path / "album.html")
    assert code == 0, err
    assert "images without labels  2" in out
    assert "cannot decode image" in (tmp_path / "album.html").read_text()
    assert "1 of the shown images cannot be read, the first: cannot decode" in err
    assert cli("data", "show", tmp_path / "album", "--out", tmp_path / "album.png")[0] == 0
    with Image.open(tmp_path / "album.png") as drawn:  # stored, prepared, unreadable
        assert drawn.convert("RGB").getpixel((8 + 2 * 104 + 4, 80)) == (217, 222, 229)
    assert cli("data", "show", "pictures", "--rand-augment", "2")[0] == 2
    assert cli("data", "show", "pictures", "--out", "x.pdf")[0] == 2


def test_activation_maps_are_over_the_image(cli, tmp_path, monkeypatch):
    pytest.importorskip("captum", reason="captum is not installed")
    picture = next(Path("pictures/train/star").iterdir())
    code, out, err = cli("explain", picture, "--weights", "saved", "--class", "star", "--class",
                         "0", "--out", tmp_path / "star.png", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [one["name"] for one in found["classes"]] == ["star", "bar"]
    assert found["layer"] == "layer3"
    with Image.open(tmp_path / "star.png") as file:
        drawn = numpy.asarray(file.convert("RGB"))
    assert drawn.shape[1] == 8 + 3 * 328
    photo, star = drawn[8:328, 8:328], drawn[8:328, 336:656]
    assert (photo != star).any()
    for words, message in ((["--class", "stat"], "no class 'stat'"),
                           (["--layer", "layer9"], "no module 'layer9'"),
                           (["--class", "star", "--top-k", "2"], "exclude each other"),
                           (["--out", "x.gif"], "no known format")):
        code, _, err = cli("explain", picture, "--weights", "saved", *words)
        assert (code, message in err) == (2, True), err
    code, _, err = cli("explain", "pictures", "--weights", "saved")
    assert code == 1
    assert "hint: name another image file" in err  # it has no '--skip-bad-samples'
    heic = tmp_path / "photo.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr("ipucnn.data.image_formats.readable", lambda _: False)
    code, _, err = cli("explain", heic, "--weights", "saved")
    assert code == 1
    assert "hint: pip install 'ipucnn[formats]'; name another image file" in err


def test_outputs_that_are_not_finite_are_not_explained(cli, tmp_path):
    pytest.importorskip("captum", reason="captum is not installed")
    import torch

    content = torch.load(str(next(Path("saved").glob("*_2.pt"))), weights_only=True)
    for part in ("model", "ema"):
        content[part]["conv1.weight"].fill_(float("nan"))
    torch.save(content, str(tmp_path / "diverged.pt"))
    code, _, err = cli("explain", next(Path("pictures/train/star").iterdir()), "--weights",
                       tmp_path / "diverged.pt", "--out", tmp_path / "x.png")
    assert code == 1
    assert "are not finite" in err
    assert not (tmp_path / "x.png").exists()


def test_the_image_to_explain_is_not_overwritten(cli):
    picture = next(Path("pictures/train/star").iterdir())
    before = picture.read_bytes()
    code, _, err = cli("explain", picture, "--weights", "saved", "--out", Path.cwd() / picture)
    assert code == 2
    assert "would overwrite" in err
    assert picture.read_bytes() == before


def test_a_missing_captum_is_one_line(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    code, _, err = cli("explain", "pictures/train/star/00.jpg", "--weights", "saved")
    assert code == 2
    assert "hint: pip install 'ipucnn[explain]'" in err
