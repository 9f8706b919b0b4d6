"""Options that name files to write: two of them never name the same file."""

import os

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.inference.options import RunResults
from ipucnn.training.stored_options import ValidationResults


@pytest.mark.parametrize(("part", "flags"), [
    (RunResults, ("result", "predictions")), (RunResults, ("predictions", "report")),
    (ValidationResults, ("confusion_matrix", "result"))])
def test_two_results_are_not_written_to_one_file(part, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for places in (("a.json", "a.json"), ("a.json", str(tmp_path / "a.json"))):
        with pytest.raises(UsageError, match="write the same file"):
            part(**dict(zip(flags, places)))
    part(**dict(zip(flags, ("a.json", "b.json"))))
    part(**dict(zip(flags, (os.devnull, os.devnull))))
