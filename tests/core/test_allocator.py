"""The C library's memory allocator in processes that compute."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from ipucnn.core.machine import usable_cores

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

PROGRAM = """
import resource
from ipucnn.core.allocator import keep_freed_memory

print(keep_freed_memory())

faults, size = [], 16 << 20
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * size
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


def _run(program=PROGRAM, limit="", **environment):
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("GLIBC_", "LD_PRELOAD", "MALLOC_"))}
    words = [sys.executable, "-c", program]
    if limit:
        words = ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "bash", *words]
    done = subprocess.run(words, env={**clean, **environment}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_freed_memory_is_used_again():
    done, faults = _run()
    assert done == "True"
    assert int(faults) < 100  # 4096 pages are mapped otherwise


def test_the_environment_of_the_user_has_precedence():
    done, faults = _run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert done == "False"
    assert int(faults) > 1000


def test_a_limit_of_the_address_space_leaves_out_huge_pages():
    done, faults = _run(limit=str(2 << 20))
    assert done == "True"
    assert int(faults) < 100


def test_jobs_set_it_and_other_commands_do_not():
    program = """
import sys
from ipucnn.__main__ import invoke
from ipucnn.core import allocator
invoke(sys.argv[1:] or ["list-plugins"])
print(allocator.keep_freed_memory.cache_info().currsize)
"""
    assert _run(program)[-1] == "0"
    job = program.replace('sys.argv[1:] or ["list-plugins"]', '["run", "--data-dir", "/missing"]')
    assert _run(job)[-1] == "1"


def test_threads_have_as_many_arenas_as_cores():
    """At a single one, threads that allocate wait for each other."""
    program = """
import ctypes
import threading

from ipucnn.core.allocator import keep_freed_memory

keep_freed_memory()
together = threading.Barrier(5)

def allocate():
    kept = b"x" * 5000
    together.wait()
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(library.fdopen(1, b"w"))
library.malloc_info(0, stream)
library.fflush(stream)
together.wait()
"""
    found = sum(word.startswith("nr=") for word in _run(program))
    assert found == min(5, usable_cores())
