"""Every line of the five READMEs, as `docs/migrating.md` lists it: it runs, or can be planned."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.commands.reference import COMMANDS
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import common_option
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.options.profiles import resolve
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.registry import registry
from ipucnn.terminal.flags import flag_table, parsed
from ipucnn.terminal.spellings import expanded, normalise

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migrating.md").read_text().partition("## Line by line")[2]

SECTIONS = {
    "umbrella": ("run", 10, ""),
    "inference": ("run", 7, "batch-size model data pipeline-splits replicas device-iteration "
                  "precision iterations half-partial normlayer groupnorm-group-num "
                  "available-memory-proportion"),
    "bulk": ("run", 5, "batch_size batches_per_step data_dir iterations model_name num_ipus "
             "num_workers synthetic nosynthetic"),
    "training": ("train", 5, "batch-size model data imagenet-data-path pipeline-splits replicas "
                 "device-iteration precision half-partial available-memory-proportion "
                 "gradient-accumulation lr epoch normlayer groupnorm-group-num no-validation "
                 "disable-metrics enable-pipeline-recompute lr-schedule lr-decay lr-epoch-decay "
                 "warmup-epoch checkpoint-path optimizer momentum loss-scaling "
                 "enable-stochastic-rounding"),
    "ResNet": ("train", 2, "size dataset data-dir base-learning-rate batch-size "
               "replication-factor gradient-accumulation-factor recompute num-ipus no-prng "
               "pipeline"),
}
"""By a word of the README's heading: the command, how many command lines it has, its options."""


def rows(word):
    """Return the rows of a README's table: its line and what it is here."""
    section = next(part for part in PAGE.split("\n### ")[1:] if word in part.partition("\n")[0])
    found = [[cell.strip() for cell in line.strip("|").split(" | ")]
             for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 for row in found), found
    return [(row[0].strip("`"), row[1]) for row in found]


@pytest.mark.parametrize("word", SECTIONS)
def test_every_line_of_a_readme_is_listed(word):
    command, lines, options = SECTIONS[word]
    listed = [line for line, _ in rows(word)]
    assert [option for option in options.split() if f"--{option}" not in listed] == []
    assert sum(here.startswith("`") or here == "not needed" for _, here in rows(word)) == lines
    for line, here in rows(word):
        if here == "the same" and line.startswith("--"):
            assert known(line, command), line


def known(flag, command):
    """Return whether a command takes a flag, in the spelling of an old application."""
    (spelt,) = normalise([flag])
    negated = spelt.replace("--no-", "--")
    return any(
        common_option(COMMANDS[command][0], one) or any(
            owner.option(one.lstrip("-")) for owner in builtin_owners(KINDS, registry()))
        for one in (spelt, negated))


def lines():
    for word in SECTIONS:
        for _, here in rows(word):
            if here.startswith("`ipucnn "):
                yield pytest.param(here.strip("`"), id=f"{word}: {here[8:60]}")


@pytest.mark.parametrize("line", list(lines()))
def test_every_line_runs_or_can_be_planned(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val2014").mkdir()
    for number in range(9):
        Image.new("RGB", (8, 8)).save(str(tmp_path / "val2014" / f"COCO_val2014_{number:012d}.jpg"))
    command, *words = normalise(shlex.split(line)[1:])
    if "--help" in words or command == "data":
        if "fetch" in words:  # over the network, which tests do not use
            words = ["fetch", "--help"]
        assert invoke([command, *words]) == 0
        assert capsys.readouterr().out
        return
    if command == "train":
        assert invoke(["plan", *words]) == 0, capsys.readouterr().err
    (kind,) = COMMANDS[command]
    words = expanded(words, flag_table([kind], words, registry()).lists())
    given = parsed(kind, words, registry())
    if command in ("run", "export"):
        made = resolve(kind, given, command)
        assert command == "export" or made.plan(made.dataset.name == "synthetic").devices >= 1
    else:
        assert build(kind, given)


def test_make_lines_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = [target for _, here in rows("umbrella")
               for target in re.findall(r"`make ?([a-z_]*)", here)]
    assert targets
    for target in targets:
        assert re.search(rf"^{target or 'all'}:", makefile, re.MULTILINE), target
