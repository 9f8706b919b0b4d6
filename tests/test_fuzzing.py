"""Files from outside end in a result or an error of a few lines, whatever is in them.

Some of each kind are tried here, always the same; `make fuzz` tries many, always others.
"""

import pytest
from fuzzing import TARGETS
from hypothesis import HealthCheck, given, settings

EXAMPLES = 25


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hostile_files(target):
    @settings(derandomize=True, deadline=None, database=None, max_examples=EXAMPLES,
              suppress_health_check=list(HealthCheck))
    @given(target.made())
    def tried(content):
        target.check(content)

    tried()
