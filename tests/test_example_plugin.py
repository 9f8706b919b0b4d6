"""The example distribution, installed by pip and used from a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "ipucnn-example-plugin"
OFFERED = {"model": "tinynet", "dataset": "stripes", "norm-layer": "instance",
           "optimizer": "signsgd", "lr-schedule": "triangular", "backend": "reference"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder into which pip has installed the example, without any network."""
    setuptools = pytest.importorskip("setuptools", minversion="64",
                                     reason="building needs setuptools 64 or newer")
    assert setuptools
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(str(EXAMPLE), str(root / "source"), ignore=shutil.ignore_patterns(
        "build", "*.egg-info", "__pycache__"))
    target = root / "site"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--disable-pip-version-check", "--target", str(target),
         str(root / "source")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return target


@pytest.fixture(scope="module")
def python(installed, tmp_path_factory):
    """Run Python with the example installed; return the finished process."""

    def run(*arguments):
        env = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
        env.update(PYTHONPATH=str(installed), NO_COLOR="1",
                   IPUCNN_CACHE=str(tmp_path_factory.getbasetemp() / "cache"))
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True,
                              text=True, cwd=str(tmp_path_factory.getbasetemp()))

    return run


def parsed(done):
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_it_is_listed_without_importing_what_it_offers(python):
    rows = parsed(python("-c", """if True:
        import json, sys
        from ipucnn.core.registry.registry import registry
        rows = [[r.kind, r.name, r.state.value, r.provider.version] for r in registry().rows()
                if r.provider.distribution == "ipucnn-example-plugin"]
        loaded = sorted(m for m in sys.modules if m.startswith("ipucnn_example_plugin."))
        print(json.dumps([rows, loaded, "torch" in sys.modules]))"""))
    assert rows == [[[kind, name, "ok", "0.1.0"] for kind, name in OFFERED.items()],
                    ["ipucnn_example_plugin.options", "ipucnn_example_plugin.plugin"], False]


def test_it_passes_the_conformance_checks(python):
    results = parsed(python("-c", """if True:
        import json
        from ipucnn.testing import check_distribution
        print(json.dumps(check_distribution("ipucnn-example-plugin")))"""))
    assert set(results) == {f"{kind}/{name}" for kind, name in OFFERED.items()}
    outcomes = {(plugin, check): result for plugin, checks in results.items()
                for check, result in checks.items()
                if result not in ("passed", "skipped: it offers no training")}
    assert outcomes == {("backend/reference", "test_every_declared_precision_works"):
                        "skipped: it declares single precision only"}


def test_its_own_tests_pass(python):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE),
                  str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_list_plugins_shows_it(python):
    listed = parsed(python("-m", "ipucnn", "list-plugins", "--json"))
    rows = listed if isinstance(listed, list) else listed["plugins"]
    mine = {row["kind"]: row["name"] for row in rows
            if row["distribution"] == "ipucnn-example-plugin"}
    assert mine == OFFERED


def test_check_plugin_command(python):
    assert parsed(python("-m", "ipucnn", "check-plugin", "lr-schedule:triangular", "--json"))


RUN = ("-m", "ipucnn", "run", "--model", "tinynet", "--data", "stripes", "--normlayer", "instance",
       "--backend", "reference", "--weights", "random", "--iterations", "3", "--json")


def test_run_uses_it(python):
    result = parsed(python(*RUN, "--precision", "full", "--batch-size", "4"))
    assert "tinynet" in json.dumps(result)
    assert "reference" in json.dumps(result)


def test_run_refuses_what_its_backend_does_not_offer(python):
    done = python(*RUN, "--precision", "half")
    assert done.returncode == 2
    assert "backend 'reference' does not compute in precision '16.16'" in done.stderr
    assert done.stdout == ""


def test_without_plugins_it_is_unknown_and_the_message_says_why(python):
    done = python(*RUN, "--precision", "full", "--no-plugins")
    assert done.returncode == 2
    assert "unknown model 'tinynet'" in done.stderr
    assert "disabled" in done.stderr


# -- its options ---------------------------------------------------------------------------------

MODEL = ("--model", "tinynet", "--tiny-width", "2", "--normlayer", "instance", "--norm-eps",
         "0.25", "--input-size", "16", "--data", "stripes", "--stripe-period", "6")
TRAIN = ("-m", "ipucnn", "train", *MODEL, "--optimizer", "signsgd", "--lr", "0.001",
         "--lr-schedule", "triangular", "--backend", "torch", "--precision", "full",
         "--batch-size", "8", "--iterations", "3", "--epoch", "1", "--no-validation",
         "--progress", "off", "--json")
OWN = {"tiny_width": 2, "norm_eps": 0.25, "stripe_period": 6, "signum_beta": 0.5,
       "sign_threshold": 0.0}


def saved(python, folder):
    """The options in the newest checkpoint of a folder, and the state of its optimizer."""
    return parsed(python("-c", """if True:
        import json, pathlib, sys, torch
        newest = max(pathlib.Path(sys.argv[1]).glob("*.pt"), key=lambda p: p.stat().st_mtime_ns)
        print(json.dumps(torch.load(str(newest), weights_only=True)["options"]))""", str(folder)))


def own(options):
    return {name: options[name] for name in OWN}


def test_options_on_the_command_line(python):
    result = parsed(python(*RUN, "--precision", "full", "--reference-arithmetic", "float64",
                           "--stripe-period", "6", "--norm-eps", "0.25", "--tiny-width", "2"))
    assert "float64, eager" in json.dumps(result)


@pytest.mark.parametrize(("words", "message"), [
    (("--reference-arithmetic", "float16"), "'--reference-arithmetic': 'float16' is not one of"),
    (("--stripe-period", "1"), "'--stripe-period': '1' is too small"),
    (("--backend", "torch", "--backend.reference-arithmetic", "float64"),
     "'--backend.reference-arithmetic' is an option of backend reference; this run uses torch"),
    (("--data", "shapes", "--stripe-period", "4"),
     "'--stripe-period' is an option of dataset stripes; this run uses shapes"),
    (("--stripe-perod", "4"), "unknown option '--stripe-perod'"),
])
def test_options_that_are_refused(python, words, message):
    done = python(*RUN, "--precision", "full", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_help_shows_the_options_of_what_is_selected(python):
    done = python("-m", "ipucnn", "train", "--optimizer", "signsgd", "--help")
    assert "--signum-beta" in done.stdout
    assert "--stripe-period" not in done.stdout
    assert "--sign-threshold" in python("-m", "ipucnn", "show", "optimizer", "signsgd").stdout


def test_options_in_python(python):
    shown = parsed(python("-c", """if True:
        import json, ipucnn
        model = ipucnn.create_model("tinynet", weights="random", normlayer="instance",
                                    norm_eps=0.25, tiny_width=2)
        images = ipucnn.load_dataset("stripes", input_size=16, stripe_period=6)
        column = images.image(0)[0, :, 0].tolist()
        result = ipucnn.run(model="tinynet", data="stripes", backend="reference",
                            precision="full", weights="random", iterations=2,
                            reference_arithmetic="float64")
        print(json.dumps([model[0].out_channels, model[1].eps, column, str(result.as_dict())]))
    """))
    assert shown[:2] == [32, 0.25]
    assert [bool(value) for value in shown[2]] == [row // 3 % 2 == 1 for row in range(16)]
    assert "float64, eager" in shown[3]


def test_options_in_a_profile_checkpoint_and_restore(python, tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("optimizer: signsgd\nsignum_beta: 0.5\nsign-dead-zone: 0\n")
    folder = tmp_path / "saved"
    parsed(python(*TRAIN, "--config", str(profile), "--checkpoint-path", str(folder)))
    assert own(saved(python, folder)) == OWN
    restore = ("-m", "ipucnn", "restore", "--checkpoint-path", str(folder), "--epoch", "2",
               "--progress", "off", "--json")
    done = python(*restore, "--optimizer.sign-threshold", "1e-4")
    parsed(done)
    assert "sign-threshold" in done.stderr  # an option that replaces the checkpoint's is printed
    assert own(saved(python, folder)) == {**OWN, "sign_threshold": 1e-4}
    done = python(*restore, "--tiny-width", "3")
    assert done.returncode == 2
    assert "--tiny-width" in done.stderr
    parsed(python("-m", "ipucnn", "validate", "--checkpoint-path", str(folder), "--progress",
                  "off", "--json"))


def test_without_the_plugin_its_options_in_a_profile_are_blamed_on_their_line(python, tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("optimizer: sgd\nsignum_beta: 0.5\n")
    done = python("-m", "ipucnn", "train", "--config", str(profile))
    assert done.returncode == 2
    assert ("'--signum-beta' is an option of optimizer signsgd; this run uses sgd "
            "(mine.yaml, line 2)") in done.stderr
