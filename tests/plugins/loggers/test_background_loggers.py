"""The loggers that send in the background, read back with the libraries of their services."""

from __future__ import annotations

import functools
import json
import os
import struct
import sys
import threading
import time
import types

import numpy as np
import pytest

from ipucnn.core.loggers import COMPLETED, STOPPED, RunInfo
from ipucnn.plugins.loggers._continued import Continued
from ipucnn.plugins.loggers._pictures import heat_map, worst
from ipucnn.plugins.loggers._sending import Sender
from ipucnn.plugins.loggers.files import FilesLogger
from ipucnn.plugins.loggers.mlflow import MlflowLogger, MlflowOptions
from ipucnn.plugins.loggers.tensorboard import TensorBoardLogger
from ipucnn.plugins.loggers.wandb import WandbLogger, WandbOptions

IMAGES = np.full((2, 8, 8, 3), 99, dtype=np.uint8)
CONFUSION = [[3, 1], [0, 4]]


def train(update, loss):
    return {"kind": "train", "epoch": update / 10, "update": update, "loss": loss, "accuracy": None}


def validation(update):
    return {"kind": "validation", "epoch": 1, "update": update, "weights": "raw", "top1": 87.5}


def wait_until(condition):
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def interrupted_and_restored(logger, folder, pause=0):
    """Record a training that is killed after update 30, and continues from its checkpoint at 10."""
    checkpoint = folder / "a_1.pt"
    checkpoint.write_bytes(b"weights")
    first = logger()
    first.start(RunInfo({"model": "resnet18", "lr": 0.1}, folder, card={"model": "resnet18"}))
    first.samples(IMAGES, ["cat", "dog"], 0)
    for row in (train(10, 2.0), validation(10), train(20, 1.9), train(30, 1.8)):
        first.row(row)
    first.confusion(validation(10), CONFUSION, ["cat", "dog"])
    first.checkpoint(checkpoint, 1, 10)
    first.finish(STOPPED, {"updates": 30})
    until = int(time.time()) + pause
    while time.time() < until:
        time.sleep(0.05)
    second = logger()
    second.start(RunInfo({"model": "resnet18", "lr": 0.1}, folder, 1, checkpoint, 10))
    for row in (validation(10), train(20, 1.9), train(30, 1.8), train(40, 1.0), validation(40)):
        second.row(row)
    second.confusion(validation(10), CONFUSION, ["cat", "dog"])
    second.best({"metric": "top1", "value": 87.5})
    assert second.finish(COMPLETED, {"updates": 40}) is None


def test_tensorboard_is_read_back_without_doubled_steps(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted_and_restored(TensorBoardLogger, tmp_path)
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, round(event.value, 5)) for event in read.Scalars("train/loss")] == [
        (10, 2.0), (20, 1.9), (30, 1.8), (40, 1.0)]
    assert [event.step for event in read.Scalars("validation/top1")] == [10, 40]
    assert [event.step for event in read.Images("validation/confusion")] == [10]
    assert len(read.Images("samples")) == 1
    texts = read.Tags()["tensors"]
    assert {"options/text_summary", "model card/text_summary",
            "checkpoints/text_summary"} <= set(texts)
    (mistakes,) = read.Tensors("validation/mistakes/text_summary")
    assert b"taken for" in mistakes.tensor_proto.string_val[0]


def test_tensorboard_records_again_after_a_full_disk(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("ipucnn.plugins.loggers.tensorboard.Sender",
                        functools.partial(Sender, pause=0.01))
    logger = TensorBoardLogger()
    logger.start(RunInfo({"model": "resnet18"}, tmp_path))
    logger.row(train(10, 2.0))
    wait_until(lambda: not logger._sender._waiting)
    ended = logger._writer  # as after a failure of tensorboard's own thread

    def fails():
        raise OSError("no space")

    ended.flush = fails
    logger.row(train(20, 1.9))
    logger.row(train(30, 1.8))
    wait_until(lambda: not logger._sender._waiting)
    monkeypatch.setattr("ipucnn.plugins.loggers.tensorboard.TemporaryFile", lambda dir: fails())
    logger.row(train(40, 1.7))
    wait_until(lambda: logger._sender._cause)
    monkeypatch.undo()
    assert logger.finish(COMPLETED, {"updates": 40}) is None
    ended.file_writer.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert sorted({event.step for event in read.Scalars("train/loss")}) == [10, 20, 30, 40]


def test_mlflow_is_read_back_without_doubled_steps(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "run"
    folder.mkdir()
    interrupted_and_restored(
        lambda: MlflowLogger(MlflowOptions(mlflow_uri=str(tmp_path / "kept"))), folder)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=(tmp_path / "kept").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ipucnn").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"model": "resnet18", "lr": "0.1"}
    assert run.data.tags["best.value"] == "87.5"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [
        (10, 2.0), (20, 1.9), (30, 1.8), (40, 1.0)]
    assert [one.step for one in client.get_metric_history(
        run.info.run_id, "validation/top1")] == [10, 40]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {
        "checkpoints", "confusion", "model_card.json", "options.json", "samples"}
    (stored,) = client.list_artifacts(run.info.run_id, "checkpoints")
    assert stored.path == "checkpoints/a_1.pt"


def stored_records(content, block=32768):
    """Yield the records of a file of wandb: LevelDB's log format after a header of 7 bytes."""
    assert content[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(content):
        if block - place % block < 7:  # the padding at a block's end
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place:place + 7])
        parts += content[place + 7:place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def test_wandb_offline_has_no_doubled_steps(tmp_path):
    pytest.importorskip("wandb")
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    interrupted_and_restored(
        lambda: WandbLogger(WandbOptions(wandb_mode="offline")), tmp_path,
        pause=2)  # the folders of a run are named by the second
    until = time.monotonic() + 20
    rows, ids = [], set()
    # its service may write the file after the run has ended
    while (40, True) not in [(row["update"], "validation/raw/top1" in row) for row in rows] \
            and time.monotonic() < until:
        time.sleep(0.2)
        rows, ids = [], set()
        for place in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
            for data in stored_records(place.read_bytes()):
                record = records.Record()
                record.ParseFromString(data)
                ids |= {record.run.run_id} - {""}
                if record.WhichOneof("record_type") == "history":
                    rows.append({
                        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                        for item in record.history.item})
    assert len(ids) == 1
    assert [(row["update"], row["train/loss"]) for row in rows if "train/loss" in row] == [
        (10, 2.0), (20, 1.9), (30, 1.8), (40, 1.0)]
    assert [row["update"] for row in rows if "validation/raw/top1" in row] == [10, 40]


def test_an_mlflow_server_that_is_away_ends_nothing(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    logger = MlflowLogger(MlflowOptions(mlflow_uri="http://127.0.0.1:9"))
    logger.start(RunInfo({}, tmp_path))
    notes = []
    for update in range(200):
        began = time.perf_counter()
        notes += filter(None, [logger.row(train(update, 1.0))])
        assert time.perf_counter() - began < 0.5
        time.sleep(0.01)
        if notes:
            break
    notes += filter(None, [logger.finish(COMPLETED, {})])
    assert "cannot record now" in notes[0]
    assert "could not record" in notes[-1]
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_run_begins_once_its_mlflow_server_answers(tmp_path, monkeypatch):
    sent, server = [], types.SimpleNamespace(away=True)

    class Client:
        def __init__(self, tracking_uri):
            if server.away:
                raise ConnectionError("refused")

        get_experiment_by_name = staticmethod(lambda _name: None)
        create_experiment = staticmethod(lambda _name: "1")
        create_run = staticmethod(lambda *_, **__: types.SimpleNamespace(
            info=types.SimpleNamespace(run_id="a")))
        log_text = set_terminated = staticmethod(lambda *_: None)

        def log_batch(self, run, metrics=(), params=()):
            sent.extend((run, *metric) for metric in metrics)

    modules = {"mlflow": {}, "mlflow.tracking": {"MlflowClient": Client},
               "mlflow.entities": dict.fromkeys(("Metric", "Param"), lambda *values: values)}
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("ipucnn.plugins.loggers._sending.ATTEMPTS", 1)
    logger = MlflowLogger(MlflowOptions(mlflow_uri="http://127.0.0.1:9"))
    logger.start(RunInfo({}, tmp_path))
    wait_until(lambda: logger._sender.lost)  # the first record is given up
    server.away = False
    logger.row(train(10, 1.0))
    assert logger.finish(COMPLETED, {}) == "logger 'mlflow' could not record 1 records: refused"
    assert ("a", "train/loss", 1.0) in [record[:3] for record in sent]


def test_a_receiver_that_comes_back_gets_everything_in_order():
    got, away = [], [2]

    def record(number):
        if away[0]:
            away[0] -= 1
            raise ConnectionError("refused\nat all")
        got.append(number)

    sender = Sender("x", pause=0.01)
    notes = [sender.put(lambda number=number: record(number)) for number in range(5)]
    until = time.monotonic() + 5
    while len(got) < 5 and time.monotonic() < until:
        time.sleep(0.01)
        notes.append(sender.put(lambda: None))
    assert sender.close() is None
    assert got == [0, 1, 2, 3, 4]
    (note,) = [one for one in notes if one]
    assert note.startswith("logger 'x' cannot record now: refused; up to 10000 records are kept")


def test_a_receiver_that_is_slow_delays_nothing_and_the_queue_is_bounded():
    block = threading.Event()
    sender = Sender("x", most=10)
    sender.put(block.wait)
    began = time.perf_counter()
    for _ in range(10_000):
        sender.put(lambda: None)
    each = (time.perf_counter() - began) / 10_000
    assert each < 0.001  # a row costs microseconds; a host call takes milliseconds
    note = sender.close(0.05)
    block.set()
    assert note == "logger 'x' could not record 10001 records: no answer within 0.05 s"


def test_the_state_of_a_run_in_its_folder(tmp_path):
    first = Continued("x", RunInfo({}, tmp_path))
    first.run_id = "abc"
    first.recorded("train", 30)
    second = Continued("x", RunInfo({}, tmp_path, 1, tmp_path / "a.pt", 10))
    assert second.run_id == "abc"
    assert [second.is_new("train", update) for update in (10, 30, 31)] == [False, False, True]
    second.back_to(10)
    assert second.is_new("train", 11)
    assert Continued("x", RunInfo({}, tmp_path)).run_id == ""
    (tmp_path / "x-run.json").write_text("{")
    assert Continued("x", RunInfo({}, tmp_path, 1, tmp_path / "a.pt", 10)).run_id == ""


def test_pictures():
    drawn = heat_map(CONFUSION)
    assert drawn.shape == (512, 512, 3)
    assert tuple(drawn[511, 0]) == (255, 255, 255)
    assert tuple(drawn[511, 511]) == (8, 48, 107)
    assert worst(CONFUSION, ["cat", "dog"]) == [("cat", "dog", 1)]


def test_files_has_the_classes_of_the_last_validation(tmp_path):
    logger = FilesLogger()
    logger.start(RunInfo({}, tmp_path))
    logger.confusion(validation(10), CONFUSION, ["cat", "dog"])
    written = json.loads((tmp_path / "classes.json").read_text())
    assert written["classes"] == [{"class": "cat", "images": 4, "top1": 75.0},
                                  {"class": "dog", "images": 4, "top1": 100.0}]
    assert written["confusion"] == CONFUSION
    assert written["update"] == 10
