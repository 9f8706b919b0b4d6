"""The example distribution, installed by pip and used from a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


SEVERAL = """if True:
    import contextlib, io, json, sys
    from ipucnn.__main__ import invoke
    finished = []
    for line in json.loads(sys.argv[1]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = invoke(line)
        finished.append([code, out.getvalue(), err.getvalue()])
    print(json.dumps(finished))
"""


@pytest.fixture(scope="module")
def commands(python):
    """Run command lines in turn in one process, which imports torch once."""

    def run(*lines):
        return [subprocess.CompletedProcess(line, *finished) for line, finished in zip(
            lines, parsed(python("-c", SEVERAL, json.dumps(lines))))]

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
                if result not in ("passed", "skipped: it offers no training",
                                "skipped: it does not offer fine-tuning",
                                "skipped: it does not offer sums over accumulation",
                                "skipped: it does not offer recomputation")}
    assert outcomes == {("backend/reference", "test_every_declared_precision_works"):
                        "skipped: it declares single precision only"}


def test_its_own_tests_pass(python):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE),
                  str(EXAMPLE / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr


RUN = ["run", "--model", "tinynet", "--data", "stripes", "--normlayer", "instance",
       "--backend", "reference", "--weights", "random", "--iterations", "3", "--json"]
REFUSED = [
    (("--reference-arithmetic", "float16"), "'--reference-arithmetic': 'float16' is not one of"),
    (("--stripe-period", "1"), "'--stripe-period': '1' is too small"),
    (("--backend", "torch", "--backend.reference-arithmetic", "float64"),
     "'--backend.reference-arithmetic' is an option of backend reference; this run uses torch"),
    (("--data", "shapes", "--stripe-period", "4"),
     "'--stripe-period' is an option of dataset stripes; this run uses shapes"),
    (("--stripe-perod", "4"), "unknown option '--stripe-perod'"),
]
LINES = {
    "list": ["list-plugins", "--json"],
    "check": ["check-plugin", "lr-schedule:triangular", "--json"],
    "run": [*RUN, "--precision", "full", "--batch-size", "4"],
    "run in half precision": [*RUN, "--precision", "half"],
    "run with options": [*RUN, "--precision", "full", "--reference-arithmetic", "float64",
                         "--stripe-period", "6", "--norm-eps", "0.25", "--tiny-width", "2"],
    "help": ["train", "--optimizer", "signsgd", "--help"],
    "show": ["show", "optimizer", "signsgd"],
    **{words: [*RUN, "--precision", "full", *words] for words, _ in REFUSED},
}


@pytest.fixture(scope="module")
def finished(commands):
    """Every line above, finished."""
    return dict(zip(LINES, commands(*LINES.values())))


def test_list_plugins_shows_it(finished):
    listed = parsed(finished["list"])
    rows = listed if isinstance(listed, list) else listed["plugins"]
    mine = {row["kind"]: row["name"] for row in rows
            if row["distribution"] == "ipucnn-example-plugin"}
    assert mine == OFFERED


def test_check_plugin_command(finished):
    assert parsed(finished["check"])


def test_run_uses_it(finished):
    result = parsed(finished["run"])
    assert "tinynet" in json.dumps(result)
    assert "reference" in json.dumps(result)


def test_run_refuses_what_its_backend_does_not_offer(finished):
    done = finished["run in half precision"]
    assert done.returncode == 2
    assert "backend 'reference' does not compute in precision '16.16'" in done.stderr
    assert done.stdout == ""


def test_without_plugins_it_is_unknown_and_the_message_has_the_reason(python):
    done = python("-m", "ipucnn", *RUN, "--precision", "full", "--no-plugins")
    assert done.returncode == 2
    assert "unknown model 'tinynet'" in done.stderr
    assert "disabled" in done.stderr


# -- its options ---------------------------------------------------------------------------------

MODEL = ("--model", "tinynet", "--tiny-width", "2", "--normlayer", "instance", "--norm-eps",
         "0.25", "--input-size", "16", "--data", "stripes", "--stripe-period", "6")
TRAIN = ("train", *MODEL, "--optimizer", "signsgd", "--lr", "0.001",
         "--lr-schedule", "triangular", "--backend", "torch", "--precision", "full",
         "--batch-size", "8", "--iterations", "3", "--epoch", "1", "--no-validation",
         "--progress", "off", "--json")
OWN = {"tiny_width": 2, "norm_eps": 0.25, "stripe_period": 6, "signum_beta": 0.5,
       "sign_threshold": 0.0}


def own(checkpoint):
    """The plugin's options in a checkpoint, which can be read without the plugin."""
    options = torch.load(str(checkpoint), weights_only=True)["options"]
    return {name: options[name] for name in OWN}


def test_options_on_the_command_line(finished):
    result = parsed(finished["run with options"])
    assert "float64, eager" in json.dumps(result)


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_options_that_are_refused(finished, words, message):
    done = finished[words]
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_help_shows_the_options_of_what_is_selected(finished):
    assert "--signum-beta" in finished["help"].stdout
    assert "--stripe-period" not in finished["help"].stdout
    assert "--sign-threshold" in finished["show"].stdout


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


def test_options_in_a_profile_checkpoint_and_restore(commands, tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("optimizer: signsgd\nsignum_beta: 0.5\nsign-dead-zone: 0\n")
    folder = tmp_path / "saved"
    restore = ("restore", "--checkpoint-path", str(folder), "--epoch", "2", "--progress", "off",
               "--json")
    trained, restored, refused, validated = commands(
        (*TRAIN, "--config", str(profile), "--checkpoint-path", str(folder)),
        (*restore, "--optimizer.sign-threshold", "1e-4"), (*restore, "--tiny-width", "3"),
        ("validate", "--checkpoint-path", str(folder), "--progress", "off", "--json"))
    parsed(trained)
    assert own(folder / "tinynet_stripes_1.pt") == OWN
    parsed(restored)
    assert "sign-threshold" in restored.stderr  # an option that replaces the checkpoint's
    assert own(folder / "tinynet_stripes_2.pt") == {**OWN, "sign_threshold": 1e-4}
    assert refused.returncode == 2
    assert "--tiny-width" in refused.stderr
    parsed(validated)


def test_without_the_plugin_its_options_in_a_profile_are_blamed_on_their_line(python, tmp_path):
    profile = tmp_path / "mine.yaml"
    profile.write_text("optimizer: sgd\nsignum_beta: 0.5\n")
    done = python("-m", "ipucnn", "train", "--config", str(profile))
    assert done.returncode == 2
    assert ("'--signum-beta' is an option of optimizer signsgd; this run uses sgd "
            "(mine.yaml, line 2)") in done.stderr
