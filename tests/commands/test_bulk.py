"""`--instances`: real processes that share one run."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

import ipucnn
from ipucnn.__main__ import invoke
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.machine import openmp_limit, usable_cores
from ipucnn.core.options.building import build
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, use
from ipucnn.inference import bulk
from ipucnn.inference.bulk import fit
from ipucnn.inference.options import RunOptions

TESTS = Path(__file__).parents[1]
PLUGINS = (str(TESTS / "tiny_plugin.py"), str(TESTS / "unruly_plugin.py"))
COMMON = {"model": "tiny-unchecked", "weights": "random", "backend": "torch", "precision": "full",
          "dataloader_worker": 1}
IPUCNN = [sys.executable, "-m", "ipucnn", "--plugin", PLUGINS[0], "--plugin", PLUGINS[1], "run",
          "--model", "tiny-unchecked", "--weights", "random", "--backend", "torch", "--precision",
          "full", "--progress", "off"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`ipucnn.run` with the test plugins, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    use(Registry(PluginSettings(extra=PLUGINS)))
    yield lambda **options: ipucnn.run(**{**COMMON, "data": "unruly", **options})
    use(None)


@pytest.fixture
def unruly(monkeypatch):
    def set_(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"UNRULY_{name.upper()}", str(value))
    return set_


def names(path):
    with open(path, newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


def left_behind(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def own_images(result):
    return [own["images"] for own in result.instances]


# -- one result ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files of several classes, a number that two do not divide."""
    folder = tmp_path_factory.mktemp("photos")
    assert invoke(["data", "shapes", "--out", str(folder), "--per-class", "2", "--size", "40"]) == 0
    sorted(folder.rglob("*.jpg"))[3].unlink()
    return folder


def test_two_processes_give_what_one_gives(run, photos):
    one, two = (run(data="image_folder", data_dir=str(photos), instances=count,
                    predictions=f"{count}.csv") for count in (1, 2))
    assert Path("1.csv").read_bytes() == Path("2.csv").read_bytes()
    assert left_behind(Path()) == []
    assert one.accuracy == two.accuracy
    assert one.images == two.images == 15
    assert one.instances == []
    assert own_images(two) == [8, 7]
    assert two.plan["replicas"] == two.plan["instances"] == 2
    assert two.environment["cores"] == usable_cores()
    assert two.environment["command"] == sys.argv
    for own in two.instances:
        assert own["exit_code"] == 0
        assert own["latency_ms"]["p50"] > 0
        log = Path(own["log"]).read_text()
        assert "preparing" in log
        assert f"classified {own['images']} images, throughput" in log
        assert "latency p50" in log
    assert {Path(own["log"]).parent.parent for own in two.instances} == {Path("logs")}


def test_cores_are_divided(run, unruly, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    notes = tmp_path / "notes"
    notes.mkdir()
    unruly(notes=notes, images=4)
    count = min(2, usable_cores())
    result = run(instances=2)
    cores = [set(path.read_text().split()) for path in notes.iterdir()]
    assert len(cores) == 2
    if count == 2:
        assert not cores[0] & cores[1]
    share = max(1, usable_cores() // 2)
    assert result.session["threads"] == min(share, openmp_limit() or share)


def test_figures_are_measured_side_by_side(run, unruly):
    unruly(images=12, sleep=0.1)
    reported = []
    one = run()
    two = bulk.run(
        build(RunOptions, {**COMMON, "data": "unruly", "instances": 2, "warmup": 0}),
        progress=lambda *progress: reported.append(progress))
    assert {total for phase, _, total in reported if phase == "run"} == {12}
    done = [done for _, done, _ in reported]
    assert done == sorted(done)
    assert 2 <= done[-1] <= 12
    assert two.iterations == 6
    assert two.seconds < one.seconds / 1.5
    assert two.throughput.mean == pytest.approx(
        sum(own["throughput"]["mean"] for own in two.instances), rel=0.05)


def test_more_processes_than_images_and_one_that_is_torn(run, unruly):
    unruly(images=2, bad="1")
    result = run(instances=3, skip_bad_samples=True, predictions="p.csv")
    assert own_images(result) == [1, 0, 0]
    assert result.images == 1
    assert result.skipped == {"count": 1, "first": [("unruly/1", "image 1 is torn")]}
    assert names("p.csv") == ["unruly/0"]


def test_images_gone_round_are_scored_once(run, unruly):
    unruly(images=1)
    result = run(instances=2, iterations=2, predictions="p.csv")
    assert result.images == 4
    assert result.accuracy["images"] == 1
    assert names("p.csv") == ["unruly/0"]


def test_the_time_limit_ends_all(run, unruly):
    unruly(images=1000, sleep=0.2)
    result = run(instances=2, time_limit=1.0, predictions="p.csv")
    assert result.stopped_by == "time limit"
    assert 0 < result.images < 100
    assert sorted(names("p.csv")) == sorted(set(names("p.csv")))
    assert len(names("p.csv")) == result.images


def test_instances_of_poptorch(run, unruly, poptorch_double):
    unruly(images=5)
    result = run(instances=2, backend="poptorch", device_iterations=2, predictions="p.csv")
    assert own_images(result) == [3, 2]
    assert len(names("p.csv")) == 5
    result = run(instances=2, backend="poptorch", compile_only=True)
    assert result.images == 0
    assert [own["exit_code"] for own in result.instances] == [0, 0]


def test_a_script_needs_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import ipucnn\n"
        "result = ipucnn.run(model='tiny-unchecked', data='synthetic', weights='random',\n"
        "                    backend='torch', instances=2, iterations=2, replicas=4,\n"
        "                    log_path='here')\n"
        "print('script', result.images, result.plan['combined_batch'])\n")
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=240,
                          cwd=str(tmp_path), env={
                              **ENVIRONMENT, "IPUCNN_PLUGIN": PLUGINS[0],
                              "PYTHONPATH": os.pathsep.join(
                                  [str(TESTS.parent), os.environ.get("PYTHONPATH", "")])})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["script 8 4"]
    assert len(list(tmp_path.glob("here/*/log_*"))) == 2


def cli(tmp_path, *words, **options):
    return subprocess.Popen([*IPUCNN, *map(str, words)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True, cwd=str(tmp_path),
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def finished(process, code=0):
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def test_the_flags_of_the_old_launcher(photos, tmp_path):
    out, err = finished(cli(
        tmp_path, "--batch_size", "2", "--batches_per_step", "2", f"--data_dir={photos}",
        "--model_name", "tiny-unchecked", "--num_classes", "8", "--num_ipus", "2", "--num_workers",
        "1", "--nosynthetic", "--nohide_output", "--log_path", "old", "--json"))
    result = json.loads(out)
    assert result["plan"]["combined_batch"] == 8
    assert result["images"] == 15
    for index in range(2):
        assert re.search(rf"^\[{index}\] .*classified [78] images", err, re.MULTILINE)
    out, err = finished(cli(tmp_path, "--num_ipus", "2", "--synthetic", "--iterations", "3",
                            "--num-classes", "8", "--micro-batch-size", "2", "--json"))
    assert json.loads(out)["images"] == 12
    assert json.loads(out)["dataset"] == "synthetic"
    assert err == ""


# -- processes that fail -------------------------------------------------------------------------


def test_a_killed_process_fails_the_run_and_the_others_finish(run, unruly):
    unruly(images=120, kill="119")  # many more than are prepared ahead
    with pytest.raises(IpucnnError) as caught:
        run(instances=2, predictions="p.csv")
    error = caught.value
    assert error.exit_code == 1
    assert error.message == "instance 1 was killed by SIGKILL"
    assert "memory is short" in error.hint
    result = error.partial
    assert result.stopped_by == "error"
    assert result.images == 60
    assert [own["exit_code"] for own in result.instances] == [0, -9]
    assert result.instances[1]["log"] in error.hint
    kept = names("p.csv")
    assert kept == sorted(kept, key=lambda name: int(name.split("/")[1]))
    assert {f"unruly/{index}" for index in range(0, 120, 2)} < set(kept)
    assert left_behind(Path()) == []


def test_processes_that_raise_or_leave(run, unruly, caplog):
    unruly(images=180, **{"raise": "13", "exit": "152"})  # many more than are prepared ahead
    with pytest.raises(IpucnnError) as caught:
        run(instances=3, predictions="p.csv")
    error = caught.value
    assert error.message == "instance 1: RuntimeError: image 13 is cursed"
    assert "RuntimeError: image 13 is cursed" in error.hint.partition("ends with")[2]
    assert "\ninstance 2 ended with exit code 7: its log is" in error.hint
    assert "instance 1 failed, the others continue" in caplog.text
    assert [own["exit_code"] for own in error.partial.instances] == [0, 1, 7]
    assert own_images(error.partial)[:2] == [60, 4]
    assert error.partial.images == 64
    assert {"unruly/0", "unruly/15", "unruly/10", "unruly/2"} < set(names("p.csv"))


def test_an_image_that_cannot_be_read_is_named(run, unruly):
    unruly(images=6, bad="5")
    with pytest.raises(IpucnnError, match=r"^instance 1: image 5 is torn") as caught:
        run(instances=2)
    assert caught.value.exit_code == 1
    assert own_images(caught.value.partial) == [3, 2]


def test_an_error_common_to_all_is_reported_once(run):
    with pytest.raises(UsageError) as caught:
        run(instances=2, model="tiny", pipeline_splits=["9/9"], device_iterations=2)
    assert "instance" not in caught.value.message
    assert "'9/9'" in caught.value.message


def test_nothing_can_be_read(run, unruly):
    unruly(images=2, bad="0 1")
    with pytest.raises(IpucnnError, match=r"^none of the images can be read; the first"):
        run(instances=2, skip_bad_samples=True)


def test_a_full_disk_is_an_error_and_rows_are_kept(tmp_path, unruly):
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    unruly(images=200)
    out, err = finished(cli(tmp_path, "--data", "unruly", "--instances", "2", "--predictions",
                            "p.json", "--json", preexec_fn=small_disk), 1)
    assert "cannot write predictions to" in err
    assert 0 < json.loads(out)["images"] < 200
    rows = json.loads((tmp_path / "p.json").read_text())
    assert all(row["probability_3"] for row in rows)
    assert "rows that are missing are in '.p.json.part-*'" in err
    assert len(rows) + sum(rows_of_parts(tmp_path, "p.json")) > 10


# -- interrupts ----------------------------------------------------------------------------------


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows_of_parts(folder, name="p.csv"):
    return [path.read_text().count("\n") - 1 for path in folder.glob(f".{name}.part-*")]


@pytest.mark.usefixtures("heeded_sighup")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_its_results(tmp_path, unruly, number, code):
    unruly(images=100000, sleep=0.02)
    process = cli(tmp_path, "--data", "unruly", "--instances", "2", "--predictions", "p.csv",
                  "--json", start_new_session=True)
    wait_for(lambda: len(rows_of_parts(tmp_path)) == 2 and min(rows_of_parts(tmp_path)) > 3,
             process)
    os.killpg(process.pid, number)  # as a terminal does
    if number == signal.SIGHUP:
        os.killpg(process.pid, number)  # the shell as well
    out, _ = finished(process, code)
    result = json.loads(out)
    assert result["stopped_by"] == signal.Signals(number).name
    assert [own["exit_code"] for own in result["instances"]] == [0, 0]
    assert len(names(tmp_path / "p.csv")) == result["images"] >= 8
    assert left_behind(tmp_path) == []
    for log in tmp_path.glob("logs/*/log_*"):
        assert "Traceback" not in log.read_text()


def test_an_interrupt_while_processes_start(tmp_path):
    process = cli(tmp_path, "--data", "unruly", "--instances", "2")
    wait_for(lambda: len(list(tmp_path.glob("logs/*/log_1"))) == 1, process)
    process.send_signal(signal.SIGINT)
    out, err = finished(process, 130)
    assert (out, err) == ("", "interrupted\n")


def test_processes_end_with_their_parent(tmp_path, unruly):
    unruly(images=100000, sleep=0.02)
    process = cli(tmp_path, "--data", "unruly", "--instances", "2", "--predictions", "p.csv")
    wait_for(lambda: len(rows_of_parts(tmp_path)) == 2, process)
    children = [int(re.search(r"process (\d+)", log.read_text()).group(1))
                for log in tmp_path.glob("logs/*/log_*")]
    os.kill(children[0], signal.SIGSTOP)
    message = process.stderr.readline()
    process.kill()
    process.communicate()
    assert re.fullmatch(rf"WARNING: instance [01], process {children[0]}, is stopped by SIGSTOP; "
                        rf"'kill -CONT {children[0]}' continues it\n", message)
    deadline = time.monotonic() + 60  # the stopped one as well
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(children) == 2


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


IMPATIENT = """
import sys
from ipucnn.inference.bulk import parent

parent.GRACE = 3.0
from ipucnn.__main__ import main

sys.exit(main())
"""


def test_a_process_that_does_not_answer_is_ended(tmp_path, unruly):
    unruly(images=100000, hang="9", sleep=0.02)
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *IPUCNN[3:], "--data", "unruly", "--instances", "2",
         "--dataloader-worker", "1", "--predictions", "p.csv", "--json"],
        cwd=str(tmp_path), env={**ENVIRONMENT, **os.environ}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)
    wait_for(lambda: len(rows_of_parts(tmp_path)) == 2 and max(rows_of_parts(tmp_path)) > 8,
             process)
    process.send_signal(signal.SIGINT)
    out, _ = finished(process, 130)
    result = json.loads(out)
    assert result["stopped_by"] == "SIGINT"
    assert result["instances"][1]["exit_code"] == -signal.SIGKILL
    assert result["images"] == result["instances"][0]["images"] > 8


ORPHAN = """
import os, sys, time
from ipucnn.inference.bulk.connected import end_with_parent

sys.platform = "other"  # where the system cannot kill it
end_with_parent(int(sys.argv[1]), os.getppid())
os.write(int(sys.argv[1]), b"x")
time.sleep(60)
"""


def test_a_child_notices_that_its_parent_is_gone_where_the_system_does_not():
    ours, theirs = Pipe()
    process = subprocess.Popen([sys.executable, "-c", ORPHAN, str(theirs.fileno())],
                               pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()
    assert os.read(ours.fileno(), 1) == b"x"
    ours.close()
    assert process.wait(timeout=50) == -signal.SIGKILL


def test_more_processes_than_the_machine_carries_are_refused(run, monkeypatch):
    monkeypatch.setattr(fit, "usable_cores", lambda: 2)
    monkeypatch.setattr(fit, "available_memory", lambda: 5 << 30)
    with pytest.raises(UsageError, match=r"9 instances do not fit .* 2 cores, for at most 4"
                       ) as caught:
        run(instances=9)
    assert "'--instances 8' or fewer" in caught.value.hint
    check_fit = fit.check_fit
    monkeypatch.setattr(fit, "available_memory", lambda: 1 << 30)
    with pytest.raises(UsageError, match=r"1.0 GiB of memory are free, .* 512 MiB") as caught:
        check_fit(3)
    assert "'--instances 2' or fewer, or add '--oversubscribe'" in caught.value.hint
    check_fit(2)
    with pytest.raises(UsageError, match="cannot make the folder"):  # what comes next
        run(instances=3, oversubscribe=True, log_path="/dev/null/x")


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"instances": 2, "replicas": 3}, "3 replicas cannot be divided among 2 instances"),
    ({"log_path": "x"}, "'--log-path' is for several instances"),
    ({"hide_output": False}, "'--no-hide-output' is for several instances"),
    ({"oversubscribe": True}, "'--oversubscribe' is for several instances"),
    ({"synthetic": True, "data": "generated"}, "'--synthetic' contradicts '--data generated'"),
    ({"synthetic": False, "data": "synthetic"}, "'--no-synthetic' contradicts"),
    ({"instances": 2, "predictions": "p.txt"}, "predictions file 'p.txt' has no known format"),
    ({"instances": 2, "data": "real", "data_dir": "nowhere"}, "'nowhere' does not exist"),
    ({"instances": 2, "model": "tinny"}, "unknown model 'tinny'"),
    ({"instances": 2, "log_path": "/dev/null/x"}, "cannot make the folder '/dev/null/x'")])
def test_mistakes_are_found_before_processes_are_started(run, tmp_path, options, message):
    with pytest.raises(IpucnnError, match=re.escape(message)):
        run(**options)
    assert list(tmp_path.iterdir()) == []


def test_poprun_starts_processes_itself(run, monkeypatch):
    monkeypatch.setenv("POPDIST_NUM_TOTAL_REPLICAS", "2")
    monkeypatch.setenv("POPDIST_NUM_LOCAL_REPLICAS", "1")
    with pytest.raises(UsageError, match="'--instances 2' would start processes in each"):
        run(instances=2)
