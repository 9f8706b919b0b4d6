"""`docs/plugins.md` agrees with the code: hooks, fields, states, variables and examples."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from ipucnn import plugin, testing
from ipucnn.core.execution.launcher import Launcher
from ipucnn.core.options.attributes import STATES, Option
from ipucnn.core.options.building import build
from ipucnn.core.registry import discovery, hookspecs
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry, State
from ipucnn.training.options.train_options import TrainOptions

DOCS = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_hook_is_documented_with_its_signature(kind):
    hook = getattr(hookspecs, kind.hook)
    returned = str(inspect.signature(hook)).replace("'", "")
    section = DOCS[DOCS.index(f"```python\ndef {kind.hook}{returned}\n```"):]
    section = section[:section.index("\n## ") if "\n### " not in section
                      else section.index("\n### ")]
    for field in dataclasses.fields(kind.record):
        if field.name not in {f.name for f in dataclasses.fields(PluginSpec)}:
            assert f"`{field.name}`" in section, f"{field.name} of {kind.record.__name__}"


def test_no_other_hook_is_documented():
    documented = re.findall(r"^def (ipucnn_\w+)\(\) ->", DOCS, re.MULTILINE)
    assert documented == [kind.hook for kind in KINDS.values()]
    assert documented == [name for name in vars(hookspecs) if name.startswith("ipucnn_")]


def test_common_fields_states_variables_suites_and_prefixes_are_documented():
    named = [field.name for field in dataclasses.fields(PluginSpec)]
    named += [state.value for state in State]
    named += [discovery.DISABLE_VARIABLE, discovery.LOAD_VARIABLE, discovery.EXTRA_VARIABLE,
              discovery.STRICT_VARIABLE]
    for name in named:
        assert f"| `{name}` |" in DOCS
    for name in [suite.__name__ for suite in testing.SUITES.values()]:
        assert f"`{name}`" in DOCS
    for kind in KINDS.values():
        assert f"`{kind.prefix}.`" in DOCS


def test_every_attribute_of_an_option_is_documented():
    section = DOCS[DOCS.index("## Options\n"):DOCS.index("## The hooks\n")]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) != []
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {
        field.name for field in dataclasses.fields(Option)}


def test_members_that_plugins_may_define_are_documented():
    for name in ("has_boxes", "ready", "flippable", "fingerprint()", "version()"):
        assert re.search(rf"^\| .*`{re.escape(name)}`.* \|", DOCS, re.MULTILINE), name
    section = DOCS[DOCS.index("### Launchers\n"):DOCS.index("## Effects on the process\n")]
    for name in [*vars(Launcher)]:
        assert name.startswith("_") or f"| `{name}" in section, name
    for state in STATES:
        assert f"`{state}`" in DOCS


def test_authors_are_referred_to_public_modules():
    described = [getattr(hookspecs, kind.hook) for kind in KINDS.values()]
    for name in plugin.NAMES:
        found = getattr(plugin, name)
        described += [found, *vars(found).values()] if inspect.isclass(found) else []
    texts = [DOCS, *(inspect.getdoc(one) or "" for one in described if callable(one))]
    assert not [text for text in texts if re.search(r"`ipucnn\.(?!plugin\b|testing\b)\w+\.", text)]


def test_the_signature_of_every_target_is_documented():
    for kind in KINDS.values():
        stated = re.search(r"``(target\(.*?\))", inspect.getdoc(getattr(hookspecs, kind.hook)))
        section = DOCS[DOCS.index(f"def {kind.hook}() ->"):]
        documented = re.search(r"`(target\(.*?\)) ->", section, re.DOTALL).group(1)
        plain = re.sub(r"\b(ipucnn|plugin|data|models|norms|torch|nn)\.", "", documented)
        assert plain == stated.group(1), kind.name


def block(text):
    """Return the code block that contains `text`, without its indentation."""
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if text in c]
    return code


def test_the_one_file_plugin_works(tmp_path):
    (tmp_path / "mynet.py").write_text(block("nn.Sequential"))
    reg = Registry(PluginSettings(extra=(str(tmp_path / "mynet.py"),), disable_all=True))
    assert reg.get_typed(ModelSpec, "mynet").input_size == 64
    results = testing.check_plugin("model", "mynet", reg)
    assert set(results.values()) == {"passed"}


def test_the_optimizer_with_options_works(tmp_path):
    (tmp_path / "lion.py").write_text(block("LionOptions"))
    reg = Registry(PluginSettings(extra=(str(tmp_path / "lion.py"),), disable_all=True))
    options = build(TrainOptions, {"optimizer": "lion", "lion-decay": "0.98"}, registry=reg)
    assert options.plugins.of("optimizer", "lion").lion_beta2 == 0.98
    assert set(testing.check_plugin("optimizer", "lion", reg).values()) == {"passed"}
