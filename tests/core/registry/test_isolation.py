"""Side effects of plugins during their import."""

import ctypes
import json
import locale
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import warnings

import numpy
import pytest
import torch
from PIL import ImageFile
from plugin_sources import fresh, model, plugin

from ipucnn.core.registry.isolation import isolated
from ipucnn.testing.distributions import write_distribution

OUTPUT = {
    "print": "print('SPOKEN')",
    "stdout": "import sys; sys.__stdout__.write('SPOKEN')",
    "descriptor": "import os; os.write(1, b'SPOKEN')",
    "child": "import subprocess, sys\n"
             "subprocess.run([sys.executable, '-c', 'print(\"SPOKEN\")'], check=True)",
    "C library": "import ctypes; ctypes.CDLL(None).printf(b'SPOKEN')",
}


def run(tmp_path, code, redirection="", **files):
    """Run `code` in a fresh interpreter with an installed plugin; return stdout and stderr."""
    write_distribution(tmp_path / "site", "chatty", files, {"models.chatty": "chatty_plugin"})
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    done = subprocess.run(
        ["/bin/bash", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
        env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


LISTING = """
import json, sys
from ipucnn.core.registry.registry import registry
sys.stdout.write("before ")  # buffered when the plugin is imported
rows = [r.state.value for r in registry().rows("model", "tinynet")]
registry().resolve(registry().get("model", "tinynet"))
print(json.dumps(rows))
"""


@pytest.mark.parametrize("place", ["import", "hook", "target"])
@pytest.mark.parametrize("way", OUTPUT)
def test_output_of_a_plugin_never_reaches_standard_output(tmp_path, way, place):
    prints = OUTPUT[way]
    record = model("tinynet", target="chatty_target:build")
    files = {
        "chatty_plugin.py": plugin(record, before=prints if place == "import" else ""),
        "chatty_target.py": (prints if place == "target" else "") + "\nbuild = len\n"}
    if place == "hook":
        body = "".join(f"    {line}\n" for line in prints.splitlines())
        files["chatty_plugin.py"] = files["chatty_plugin.py"].replace(
            "    return", body + "    return")
    out, err = run(tmp_path, LISTING, **files)
    assert out == 'before ["ok"]\n'
    assert err.count("SPOKEN") == 1


def test_closed_standard_output_stays_closed(tmp_path):
    code = """
import json, os, sys
from ipucnn.core.registry.registry import registry
rows = [r.state.value for r in registry().rows("model", "tinynet")]
try:
    os.fstat(1)
except OSError:
    print(json.dumps(rows), file=sys.stderr)
"""
    source = plugin(model("tinynet"), before="import os; os.write(1, b'SPOKEN')")
    _, err = run(tmp_path, code, ">&-", **{"chatty_plugin.py": source})
    assert 'SPOKEN["ok"]' in err


def test_closed_standard_error_does_not_send_output_to_standard_output(tmp_path):
    source = plugin(model("tinynet"), before=OUTPUT["print"] + "\n" + OUTPUT["descriptor"])
    out, _ = run(tmp_path, LISTING, "2>&-", **{
        "chatty_plugin.py": source, "tinynet.py": "build = len"})
    assert out == 'before ["ok"]\n'


def test_standard_output_that_is_no_file_is_kept(monkeypatch, capfd):
    class Notebook:
        text = ""

        def write(self, text):
            self.text += text

    notebook = Notebook()
    monkeypatch.setattr(sys, "stdout", notebook)
    with isolated("it"):
        print("to standard error")
    print("shown", end="")
    assert sys.stdout is notebook
    assert notebook.text == "shown"
    assert "to standard error" in capfd.readouterr().err


def test_nested_and_concurrent_use_restore_standard_output_once(capfd):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with isolated("other"):
            inside.set()
            leave.wait(30)
            os.write(1, b"late;")

    thread = threading.Thread(target=other)
    with isolated("outer"):
        with isolated("inner"):
            os.write(1, b"inner;")
        os.write(1, b"outer;")
        thread.start()
        assert inside.wait(30)
    os.write(1, b"main;")  # the other thread still needs the redirection
    leave.set()
    thread.join()
    os.write(1, b"end")
    out, err = capfd.readouterr()
    assert out == "end"
    assert err == "inner;outer;main;late;"


def test_descriptors_are_not_leaked():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with isolated("it"):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_buffers_of_c_are_written_before_and_after(capfd):
    library = ctypes.CDLL(None)
    library.printf(b"before;")
    with isolated("it"):
        library.printf(b"within;")
    library.printf(b"after;")
    library.fflush(None)
    assert capfd.readouterr() == ("before;after;", "within;")


# -- settings of the process -------------------------------------------------------------


CHANGES = {
    "the working directory": "import os; os.chdir('/')",
    "the locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
    "the root logger": "import logging; logging.disable(50); logging.getLogger().setLevel(5)",
    "the filters of all warnings": "import warnings; warnings.simplefilter('ignore')",
    "the default type of torch": "import torch; torch.set_default_dtype(torch.float64)",
    "torch's recording of gradients": "import torch; torch.set_grad_enabled(False)",
    "the threads of torch": "import torch; torch.set_num_threads(torch.get_num_threads() + 1)",
    "Pillow's reading of truncated images":
        "import PIL.ImageFile; PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True",
    "the state of 'random'": "import random; random.seed(1)",
    "the state of 'numpy.random'": "import numpy; numpy.random.seed(1)",
    "the random state of torch": "import torch; torch.manual_seed(1)",
    "the handler of SIGINT": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "the handler of SIGTERM": "import signal; signal.signal(signal.SIGTERM, lambda *a: None)",
    "the handler of SIGHUP": "import signal; signal.signal(signal.SIGHUP, lambda *a: None)",
}


def process_state():
    kind, keys, *others = numpy.random.get_state()
    root = logging.getLogger()
    return (os.getcwd(), locale.setlocale(locale.LC_ALL), root.level, list(root.handlers),
            root.manager.disable, warnings.filters[:], torch.get_default_dtype(),
            torch.is_grad_enabled(), torch.get_num_threads(), ImageFile.LOAD_TRUNCATED_IMAGES,
            random.getstate(), kind, keys.tobytes(), others,
            torch.get_rng_state().tolist(),
            *map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)))


@pytest.mark.parametrize("ending", ["", "1 / 0"])
@pytest.mark.parametrize("what", CHANGES)
def test_changed_setting_is_restored_and_reported_once(install, caplog, what, ending):
    install("meddler", plugin(model("tinynet"), before=f"{CHANGES[what]}\n{ending}"))
    before = process_state()
    reg = fresh()
    reg.rows("model")
    reg.rows("model")
    assert process_state() == before
    (message,) = [r.getMessage() for r in caplog.records
                  if r.levelno == logging.WARNING and "while it was imported" in r.getMessage()]
    assert f"of meddler 1.0 changed {what} while it was imported" in message


def test_changes_of_a_target_and_of_hooks_are_restored(install, caplog):
    source = plugin(model("tinynet", target="meddler_plugin_target:build")).replace(
        "    return", "    import random; random.seed(1)\n    return")
    install("meddler", source)
    with open(next(f for f in sys.path if f.endswith("installed/meddler"))
              + "/meddler_plugin_target.py", "w") as file:
        file.write("import os\nos.chdir('/')\nbuild = len\n")
    before = process_state()
    reg = fresh()
    reg.resolve(reg.get("model", "tinynet"))
    assert process_state() == before
    assert "changed the state of 'random'" in caplog.text
    assert "changed the working directory" in caplog.text
    assert caplog.text.count("of meddler 1.0 changed") == 2


def test_plugin_that_changes_nothing_is_not_reported(install, caplog):
    install("quiet", plugin(model("tinynet"), before="import random; random.Random(3).random()"))
    fresh().rows("model")
    assert "quiet" not in caplog.text


def test_removed_working_directory_does_not_stop_a_listing(install, tmp_path, monkeypatch):
    install("tiny-dist", plugin(model("tinynet")))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert fresh().rows("model", "tinynet")


def test_libraries_are_not_imported_for_their_random_state(tmp_path):
    code = """
import json, sys
from ipucnn.core.registry.registry import registry
registry().rows("model")
print(json.dumps([m for m in ("numpy", "torch") if m in sys.modules]))
"""
    out, _ = run(tmp_path, code, **{"chatty_plugin.py": plugin(model("tinynet"))})
    assert json.loads(out) == []


def test_filters_for_the_warnings_of_a_library_are_kept(install, caplog):
    install("filters", plugin(model("tinynet"), before="""
import warnings
warnings.filterwarnings("ignore", module="some_library_of_mine")
"""))
    before = len(warnings.filters)
    fresh().rows("model")
    assert len(warnings.filters) == before + 1
    assert "filters 1.0" not in caplog.text
    del warnings.filters[0]
