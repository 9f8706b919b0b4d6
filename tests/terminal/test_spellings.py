"""Spellings of the older applications become the parser's."""

from __future__ import annotations

import pytest

from ipucnn.terminal.spellings import expanded, normalise

LISTS = {"--pipeline-splits", "--available-memory-proportion"}


@pytest.mark.parametrize(("given", "parsed"), [
    ("run --pipeline-splits a b c --replicas 4",
     "run --pipeline-splits a --pipeline-splits b --pipeline-splits c --replicas 4"),
    ("run --pipeline-splits=a b", "run --pipeline-splits=a --pipeline-splits b"),
    ("run --available-memory-proportion 0.1 .2 -v",
     "-v run --available-memory-proportion 0.1 --available-memory-proportion .2"),
    ("run --batch_size 4 --model_name=a_b", "run --batch-size 4 --model-name=a_b"),
    ("run --seed -3", "run --seed -3"),
    ("list-plugins --no-plugins", "--no-plugins list-plugins"),
    ("list-plugins --no-plugins=a,b", "--disable-plugins=a,b list-plugins"),
    ("list-plugins --plugin x.py models", "--plugin x.py list-plugins models"),
    ("list-plugins --plugin=x.py", "--plugin=x.py list-plugins"),
    ("run -- --no-plugins", "run -- --no-plugins"),
    ("run --plugin", "--plugin  run"),
    ("migrate python x.py -v --plugin a", "migrate python x.py -v --plugin a"),
    ("migrate -v --from timm python x.py -q", "-v migrate --from timm python x.py -q"),
    ("migrate --config c.yml --plugin a -q", "--plugin a -q migrate --config c.yml"),
    ("run -help", "run --help"),
    ("run --nosynthetic --nohide_output --nohalf_partials",
     "run --no-synthetic --no-hide-output --no-half-partials"),
])
def test_arguments_are_rewritten(given, parsed):
    assert expanded(normalise(given.split()), LISTS) == parsed.split(" ")


def test_options_follow_a_command_line_in_quotes():
    assert normalise(["migrate", "python x.py", "-q"]) == ["-q", "migrate", "python x.py"]
