"""Starts processes with torch's elastic agent, the engine of `torchrun`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import warnings
from contextlib import contextmanager, suppress
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, Sequence, Tuple

from ipucnn.core.environment import environment_with
from ipucnn.core.errors import IpucnnError, UnavailableError, UsageError
from ipucnn.core.exit_codes import INTERRUPTED, OF_SCHEDULERS, ending_signals
from ipucnn.core.machine import compute_threads
from ipucnn.core.orphans import PARENT
from ipucnn.plugins.launchers._torchrun_options import TorchRunOptions

_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
"""What torch writes of its own; the agent's errors are reported in one line."""

_NOTICED = 1.0
"""Seconds within which the agent notices that a process has ended."""

_SAVING = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds after a signal, in which the processes finish their step and save, until the agent kills
them. torch before 2.12 always waits 30 s."""

_SAVED = "600"
"""Default of this variable."""

_ANSWER = 5.0
"""Seconds within which the store of a rendezvous must respond."""


def start(command: Sequence[str], options: TorchRunOptions) -> int:
    """Start the processes of this host and wait for them; return the exit code.

    Args:
        command: the arguments of the command of every process.
        options: number of processes, and the rendezvous.

    Raises:
        UsageError: the port is in use.
        UnavailableError: the rendezvous failed.
        IpucnnError: a process was killed.
    """
    with _without_hangup():  # before torch is imported, whose threads inherit it
        return _start(command, options)


def _start(command: Sequence[str], options: TorchRunOptions) -> int:
    wanted = os.environ.get(_LOG_LEVEL)
    os.environ.setdefault(_LOG_LEVEL, "FATAL")  # read when torch is imported
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count = _count(options)
    first, last = options.hosts
    # by default, the processes would connect to the name of this host, which may be unknown
    place: Dict[str, Any] = _place(options.rdzv_endpoint) if options.rdzv_endpoint \
        else {"local_addr": "localhost"}
    settings: Dict[str, Any] = {
        "min_nodes": first, "max_nodes": last, "nproc_per_node": count,
        "run_id": "ipucnn", "role": "ipucnn", "rdzv_backend": "c10d",
        "rdzv_endpoint": options.rdzv_endpoint or "localhost:0",
        "rdzv_configs": {"timeout": options.rdzv_timeout, "join_timeout": options.rdzv_timeout,
                         "read_timeout": options.rdzv_timeout, **place.pop("configs", {})},
        **place,
        "max_restarts": options.max_restarts, "monitor_interval": _NOTICED}
    threads = str(max(1, compute_threads() // count))
    inherited = {PARENT: str(os.getpid()), _LOG_LEVEL: wanted or "ERROR",
                 _SAVING: os.environ.get(_SAVING, _SAVED),
                 "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    # the agent would not remove a folder of its own
    with TemporaryDirectory(prefix="ipucnn-") as folder:
        try:
            with _silent(), environment_with(inherited), _schedulers_heeded(SignalException):
                config = LaunchConfig(**settings, **_files_in(folder))  # reads the environment
                elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            return _failed(error)
        except SignalException as error:
            return 128 + int(error.sigval)
        except (RendezvousError, TimeoutError, OSError) as error:
            raise _no_rendezvous(error, options) from error
    return 0


@contextmanager
def _schedulers_heeded(exception: Any) -> Iterator[None]:
    """Pass on the signals by which schedulers announce a time limit, as the agent does others.

    The scheduler sends them to the processes as well, where SIGTERM would be a second signal.
    """
    def passed_on(number: int, _frame: Any) -> None:
        raise exception(f"received signal {number}", signal.Signals(number))

    heeded = [number for number in ending_signals() if number.name in OF_SCHEDULERS]
    before = [signal.signal(number, passed_on) for number in heeded]
    try:
        yield
    finally:
        for number, handler in zip(heeded, before):
            signal.signal(number, handler)


def _files_in(folder: str) -> Dict[str, Any]:
    """Return the setting of the agent for the folder of its files."""
    try:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    except ImportError:  # before torch 2.3
        return {"log_dir": folder}
    return {"logs_specs": DefaultLogsSpecs(folder)}


@contextmanager
def _without_hangup() -> Iterator[None]:
    """Block SIGHUP if it is ignored (`nohup`), because the agent handles it nevertheless.

    Its processes inherit the block; after it has set a handler, they would not ignore the signal.
    """
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is not signal.SIG_IGN:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {hangup})
    try:
        yield
    finally:
        signal.signal(hangup, signal.SIG_IGN)  # which discards the blocked ones
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the agent: the processes and one line of the launcher report the same."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _count(options: TorchRunOptions) -> int:
    """Return the number of processes on this host: by default one for each GPU."""
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return options.nproc or max(1, devices)


def _place(endpoint: str) -> Dict[str, Any]:
    """Return settings of the rendezvous for the agent.

    These are this host's address for the other hosts, and whether the endpoint is on this host,
    which the agent would determine by the host's name only.

    Raises:
        UsageError: there is no such host, or another program listens on the port.
    """
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")  # of an IPv6 address
    try:
        socket.create_connection((host, int(port)), 2).close()
    except socket.gaierror as error:
        raise UsageError(f"host {host!r} of '--rdzv-endpoint' is not known: {error.strerror}",
                         "write the name or address of one of the hosts") from error
    except OSError:  # no program listens: this host may be the first one
        listening = False
    else:
        listening = True
    if listening and not _answers(host, int(port)):
        raise _in_use(endpoint)
    own, there = _addresses(host, int(port))
    # the name of this host may lead to an address that others cannot reach
    if not own or (_is_loopback(own) and not _is_loopback(host)):
        return {}
    first = not listening and own == there and not _is_loopback(own)
    return {"local_addr": own, "configs": {"is_host": True} if first else {}}


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _addresses(host: str, port: int) -> Tuple[str, str]:
    """Return the addresses of this host and of another one on the way there; empty without one."""
    with suppress(OSError):
        family, kind, protocol, _, place = min(  # IPv4 where both are possible
            socket.getaddrinfo(host, port or 9, type=socket.SOCK_DGRAM),
            key=lambda found: found[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as own:
            own.connect(place)
            return str(own.getsockname()[0]), str(own.getpeername()[0])
    return "", ""


def _answers(host: str, port: int) -> bool:
    """Return whether the store of a rendezvous responds.

    This is tested in a separate process, because waiting cannot be interrupted.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads exist: none is needed
        child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_ANSWER)).set(
                "ipucnn", "")
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + _ANSWER
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _in_use(endpoint: str) -> UsageError:
    return UsageError(f"the port of '{endpoint}' is in use by another program",
                      "choose another, the same on all hosts")


def _failed(error: Any) -> int:
    """Return the exit code of the process that failed first, which has reported why.

    Raises:
        IpucnnError: it was killed, and could not report anything.
    """
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return int(failure.exitcode)
    name = signal.Signals(-failure.exitcode).name
    if name in INTERRUPTED:
        return 128 - int(failure.exitcode)
    raise IpucnnError(f"instance {rank + 1} was killed by {name}",
                      "the system does so when memory runs out; 'ipucnn restore' continues from "
                      "the last checkpoint")


def _no_rendezvous(error: Exception, options: TorchRunOptions) -> IpucnnError:
    place = options.rdzv_endpoint or "localhost"
    text = str(error.__cause__ or error)
    if "address already in use" in text.lower() or "EADDRINUSE" in text:
        return _in_use(place)
    return UnavailableError(
        f"the hosts did not find each other at '{place}' within {options.rdzv_timeout} s: "
        f"{text.splitlines()[0] if text else type(error).__name__}",
        f"start the same command on {options.nnodes} hosts, and check that they reach '{place}'")
