"""A process ends with the one that started it, also if that is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys, time
from ipucnn.core.orphans import end_with_parent
end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
''', str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(child.pid, 19)
child.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system cannot do it")
def test_a_child_that_is_stopped_ends_with_its_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 5
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(number):
    try:
        with open(f"/proc/{number}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_parent_that_has_ended_before_is_noticed():
    program = "from ipucnn.core.orphans import end_with_parent; end_with_parent(1 << 30)"
    assert subprocess.run([sys.executable, "-c", program], check=False,
                          env=dict(os.environ)).returncode == 1
