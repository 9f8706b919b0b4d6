"""Many records, many distributions, names with a namespace, and what is never imported."""

import sys
import textwrap
import time
from importlib import metadata

import pytest
from plugin_sources import fresh, model, of, plugin, python, row

from ipucnn.core.errors import UnavailableError, UnknownNameError
from ipucnn.core.registry import discovery, listing
from ipucnn.core.registry.registry import Registry, State, use
from ipucnn.terminal import tables
from ipucnn.terminal.completed_names import completions
from ipucnn.testing.distributions import write_distribution

ZOO = """
import ipucnn
REQUIRED = (ipucnn.Requirement("no_such_engine", "pip install no-such-engine"),)
@ipucnn.hookimpl
def ipucnn_models():
    for i in range(%d):
        yield ipucnn.ModelSpec(name=f"zoo/net{i}.v1_k", summary="a net", target="json:loads",
                               aliases=(f"net{i}",), requires=REQUIRED if i %% 2 else ())
"""


def seconds(function, *arguments):
    """The processor time of a call, the best of three."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        function(*arguments)
        taken.append(time.process_time() - start)
    return min(taken)


# -- many records ------------------------------------------------------------------------


def test_a_thousand_records_are_listed_and_found_quickly(install):
    install("zoo", ZOO % 1000)
    reg, without = fresh(), fresh(disable_all=True)
    assert len(of(reg.rows(), "zoo")) == 1000
    assert seconds(lambda: fresh().rows()) < seconds(lambda: fresh(disable_all=True).rows()) + 0.2
    assert seconds(reg.rows) < seconds(without.rows) + 0.1


def test_look_ups_do_not_depend_on_the_number_of_records(install):
    install("zoo", ZOO % 10_000)
    reg = fresh()
    reg.get("model", "zoo/net1.v1_k")

    def look_ups():
        for i in range(0, 10_000, 10):
            for name in (f"zoo/net{i}.v1_k", f"net{i}", f"zoo:net{i}"):
                spec = reg.get("model", name)
                assert reg.provider_of(spec).distribution == "zoo"
                assert reg.options_class(spec) is None

    assert seconds(look_ups) < 1.0  # 0.1 ms each; linear ones took minutes


def test_listing_grows_in_proportion(install):
    install("small", ZOO % 1000)
    small = fresh()
    small.rows()
    one = seconds(small.rows, "model")
    install("zoo", (ZOO % 10_000).replace("zoo/", "big/").replace('f"net', 'f"other'))
    reg = fresh()
    reg.rows()
    assert seconds(reg.rows, "model") < 30 * one


def test_equal_required_modules_are_searched_once(install, monkeypatch):
    install("zoo", ZOO % 200)
    searched = []
    real = discovery.importlib.util.find_spec
    monkeypatch.setattr(discovery.importlib.util, "find_spec",
                        lambda name: searched.append(name) or real(name))
    states = {r.name: r.state for r in of(fresh().rows("model"), "zoo")}
    assert states["zoo/net0.v1_k"] is State.OK
    assert states["zoo/net1.v1_k"] is State.UNAVAILABLE
    assert searched.count("no_such_engine") == 1


# -- many distributions ------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch):
    """(distribution, file) of the metadata that is read from now on.

    Once a library has imported the backport `importlib_metadata`, that one finds distributions on
    Python 3.8, with a class of its own.
    """
    kind = type(metadata.distribution("ipucnn"))
    files = []
    real = kind.read_text
    monkeypatch.setattr(kind, "read_text", lambda self, name: (
        files.append((self._path.name, name)), real(self, name))[1])
    return files


def test_built_in_look_ups_read_no_metadata_of_others(fake_distribution, read):
    fake_distribution("other", {}, {"models.a": "no_such_module_anywhere"})
    read.clear()
    reg = fresh()
    reg.get("model", "resnet50")
    reg.get("model", "ipucnn:resnet50")
    reg.names("optimizer")
    assert completions(reg, "model", "resnet1")
    assert {name.partition("-")[0] for name, _ in read} == {"ipucnn"}
    assert not any(name.startswith("other") for name, _ in read)
    reg.rows("model")
    assert any(name.startswith("other") for name, _ in read)


def test_entry_points_of_a_distribution_are_read_once(fake_distribution, read):
    fake_distribution("other", {}, {"models.a": "no_such_module_anywhere"})
    read.clear()
    for _ in range(2):
        discovery.scan()
    unrelated = [name for name, file in read if file == "entry_points.txt"
                 and name.startswith("pluggy-")]
    assert len(unrelated) == 1


def test_a_name_in_many_distributions_is_ambiguous_in_all(tmp_path, monkeypatch):
    for i in range(20):
        write_distribution(tmp_path, f"dist-{i}", {f"dist_{i}_plugin.py": plugin(
            model("tinynet", input_size=i + 1))}, {"models.a": f"dist_{i}_plugin"})
    monkeypatch.syspath_prepend(str(tmp_path))
    discovery.refresh()
    rows = fresh().rows("model", "tinynet")
    discovery.refresh()
    assert [r.state for r in rows] == [State.CONFLICT] * 20
    assert rows[0].cause.count(" 1.0") == 3
    assert rows[0].cause.endswith(" and others")


# -- names with a namespace --------------------------------------------------------------


@pytest.fixture
def zoo(install):
    install("pytorch-models", plugin(
        model("timm/resnet50.a1_in1k", aliases=("timm/resnet50",)), model("timm/vit_tiny"),
        model("hub/resnet50")), entry_point="models.timm")
    return fresh()


@pytest.mark.parametrize("spelling", [
    "timm/resnet50.a1_in1k", "TIMM/ResNet50.A1-in1k", "timm/resnet50",
    "pytorch-models:timm/resnet50", "models.timm:timm/resnet50.a1_in1k"])
def test_look_up_with_a_namespace(zoo, spelling):
    assert zoo.get("model", spelling).name == "timm/resnet50.a1_in1k"
    assert zoo.get("model", "resnet50").name == "resnet50"


@pytest.mark.parametrize(("pattern", "names"), [
    ("timm/*", {"timm/resnet50.a1_in1k", "timm/vit_tiny"}),
    ("TIMM/VIT-*", {"timm/vit_tiny"}), ("*/resnet50", {"timm/resnet50.a1_in1k", "hub/resnet50"}),
    ("resnet50", {"resnet50"}),
])
def test_filter_with_a_namespace(zoo, pattern, names):
    assert {r.name for r in zoo.rows("model", pattern)} == names


@pytest.mark.parametrize(("wrong", "suggested"), [
    ("timm/resnte50.a1_in1k", "'timm/resnet50.a1_in1k'"), ("vit_tyni", "'timm/vit_tiny'"),
    ("pytorch-models:tim/vit_tiny", "'timm/vit_tiny'"), ("vit-tiny", "'timm/vit_tiny'"),
])
def test_close_match_with_a_namespace(zoo, wrong, suggested):
    with pytest.raises(UnknownNameError) as caught:
        zoo.get("model", wrong)
    assert f"did you mean {suggested}" in caught.value.hint


def test_completion(zoo):
    assert {"resnet18", "resnet101"} < set(completions(zoo, "model", "ResNet1"))
    assert completions(zoo, "model", "timm/r") == ["timm/resnet50.a1_in1k"]
    assert completions(zoo, "model", "TIMM/VIT-") == ["timm/vit_tiny"]
    assert completions(zoo, "model", "pytorch-models:hub") == ["pytorch-models:hub/resnet50"]
    assert completions(zoo, "model", "nothing") == []


@pytest.mark.parametrize("path", [
    "nets_of_ours.py", "namespace_of_ours/vision/nets.py"])
def test_completion_remembers_names_until_a_plugin_changes(fake_distribution, tmp_path,
                                                          monkeypatch, path):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))

    def pressed():
        discovery.refresh()
        registry = fresh()
        return completions(registry, "model", "remembered"), len(registry.load_seconds())

    source = """
        import ipucnn

        @ipucnn.hookimpl
        def ipucnn_models():
            return [ipucnn.ModelSpec(name="NAME", summary="a net", target="json:loads")]
        """
    code = textwrap.dedent(source)
    name = path[:-3].replace("/", ".")
    folder = fake_distribution("nets", {path: code.replace("NAME", "remembered-1")},
                               {"models.nets": name})
    names, loaded = pressed()
    assert names == ["remembered-1"]
    assert pressed() == (names, loaded - 1)  # the plugin is not imported

    next(tmp_path.glob("cache/completion/*.json")).write_text('{"damaged": ')
    assert pressed() == (names, loaded)

    module = folder / path
    module.write_text(code.replace("NAME", "remembered-22"))
    sys.modules.pop(name, None)
    assert pressed() == (["remembered-22"], loaded)


# -- what is never imported --------------------------------------------------------------


@pytest.mark.parametrize("call", ["get('model', 'resnte50')", "get('modl', 'resnet50')",
                                  "rows('modls')", "get('model', 'nobody:resnet50')",
                                  "spellings('model')"])
def test_mistyped_name_does_not_import_torch(call):
    code = f"""if True:
        import json, sys
        from ipucnn.core.errors import UsageError
        from ipucnn.core.registry.registry import registry
        try:
            hint = str(registry().{call})
        except UsageError as error:
            hint = error.hint
        print(json.dumps([hint, [m for m in ("torch", "numpy") if m in sys.modules]]))"""
    hint, imported = python(code)
    assert imported == []
    assert "did you mean" in hint or "ipucnn:resnet50" in hint \
        or "'ipucnn list-plugins models'" in hint


# -- text of plugins ---------------------------------------------------------------------


def test_texts_of_plugins_are_escaped_in_causes_messages_and_log(install, caplog):
    install("nasty", plugin("1 / 0", before="raise ValueError('red \\x1b[31m \\u202e end')"),
            entry_point="models.nasty")
    needs = "(ipucnn.Requirement('no_such\\x1b', 'pip\\x1b[2J'),)"
    install("needy", plugin(model("tinynet")[:-1] + f", requires={needs})"))
    reg = fresh()
    rows = reg.rows("model")
    failed, unavailable = row(rows, "nasty"), row(rows, "needy")
    assert failed.cause == "ValueError: red \\x1b[31m \\u202e end"
    assert unavailable.remedy == "pip\\x1b[2J"
    with pytest.raises(UnavailableError) as caught:
        reg.resolve(reg.get("model", "tinynet"))
    with pytest.raises(UnknownNameError) as unknown:
        reg.get("model", "lostnet")
    for text in (caplog.text, unavailable.cause, str(caught.value), str(unknown.value)):
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_names_of_distributions_and_entry_points_are_escaped(caplog):
    provider = discovery.Provider("ev\x1bil", "1\x9b", "models.\x07a", "no_such\u202e")
    found = discovery.Found(provider, metadata.EntryPoint("models.a", "no_such_module", "ipucnn"))
    reg = Registry(discovery.PluginSettings(), [*discovery.builtins(), found])
    (failed,) = of(reg.rows("model"), "ev\x1bil")
    for text in (provider.label, failed.remedy, caplog.text):
        assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(text)
    assert "ev\\x1bil 1\\x9b" in caplog.text
    assert listing.entry(failed)["distribution"] == "ev\x1bil"  # JSON escapes for itself


def test_summary_is_escaped_in_a_table_and_raw_in_an_entry(install):
    record = model("tinynet").replace("a net", "a \\x1b[31mred net")
    install("tiny-dist", plugin(record))
    use(fresh())
    listed = row(fresh().rows("model"), "tiny-dist")
    described = listing.entry(listed)
    assert described["summary"] == "a \x1b[31mred net"
    for text in (tables.table(("name", "summary"), [(listed.name, described["summary"])]),
                 tables.facts([("summary", described["summary"])])):
        assert "a \\x1b[31mred net" in text
        assert "\x1b[31m" not in text
    use(None)
