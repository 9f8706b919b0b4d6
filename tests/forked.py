"""Processes that are forked from one that has imported torch, which takes most of a short command.

A test that depends on what a process imports, or on its start, needs a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.distributed", "numpy", "ipucnn.cli",
                                "ipucnn.training.phases", "ipucnn.plugins.backends.torch.engine",
                                # torch 2.0 has none: a module that is missing is left out
                                "torch.distributed.pipelining"])


def ipucnn(words):
    """Execute a command of ipucnn."""
    from ipucnn.__main__ import main

    sys.argv = ["ipucnn", *words]
    return main()


def poprun(words):
    """Execute the double of `poprun`, whose instances are forked as well."""
    import poprun as launcher

    sys.argv = ["poprun", *words]
    return launcher.main(lambda command, env: Forked(ipucnn, command[1:], env, forked=True))


def redirect(output):
    """Write the output of this process to two files."""
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND),
                descriptor)
    # those of the fork server are what the test that started it had
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))


def call(function, words, variables, output=None):
    """Call a function as the main program of this process, with its output in files if given."""
    # another test may have started the fork server while it blocked or ignored signals
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    if output:
        redirect(output)
    code = function(words)
    sys.stdout.flush()
    sys.exit(code)


class Forked:
    """A process with the interface of `subprocess.Popen`.

    Args:
        function: what it executes, `ipucnn` or `poprun`.
        words: of its command line.
        variables: its environment.
        forked: this process is one, of which the new one is a fork with the same output.
    """

    def __init__(self, function, words, variables, forked=False):
        context = multiprocessing.get_context("fork") if forked else CONTEXT
        folder = None if forked else tempfile.mkdtemp()
        self._output = None if forked else os.path.join(folder, "output")
        if not forked:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._process = context.Process(target=call, args=(
            function, list(map(str, words)), dict(variables), self._output))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("ipucnn", timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        found = [Path(f"{self._output}.{name}") for name in ("out", "err")]
        return tuple(file.read_text() if file.exists() else "" for file in found)

    def send_signal(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.join()
