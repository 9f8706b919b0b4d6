import errno
import hashlib
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import FaultyServer

from ipucnn.core import files
from ipucnn.core.errors import DataError, UsageError
from ipucnn.data.remote import shard_cache
from ipucnn.data.remote.shard_cache import RemoteFiles
from ipucnn.data.remote.transfer import Patience
from ipucnn.plugins.datasets._webdataset.shard_metadata import Shard
from ipucnn.plugins.datasets._webdataset.source import Server

SIZE = 600_000  # more than two chunks of a transfer
PATIENCE = Patience(timeout=0.25, attempts=3, pause=0.01)


def content(number):
    return bytes([number]) * (SIZE - 1) + b"."


def described(number):
    return f"s-{number}.tar", SIZE, hashlib.md5(content(number)).hexdigest()


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(5):
        (folder / described(number)[0]).write_bytes(content(number))
    (folder / "metadata.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server(served):
    with FaultyServer(served) as running:
        yield running


def remote(server, tmp_path, room=None, patience=PATIENCE):
    return RemoteFiles(server.url, str(tmp_path / "cache"), room, patience)


def held(tmp_path):
    """Return the files in the cache, except for locks."""
    return sorted(path for path in (tmp_path / "cache").rglob("*")
                  if path.is_file() and path.suffix != ".lock")


def read(path):
    with open(path, "rb") as file:
        return file.read()


class TestTransfer:
    def test_a_file_is_downloaded_once(self, server, tmp_path):
        files = remote(server, tmp_path)
        assert read(files.path(*described(1))) == content(1)
        assert read(files.path(*described(1))) == content(1)
        assert read(remote(server, tmp_path).path(*described(1))) == content(1)
        assert server.requests == ["s-1.tar"]

    def test_text_is_always_fetched_again(self, server, served, tmp_path):
        files = remote(server, tmp_path)
        assert files.text("metadata.json", 100) == "{}"
        (served / "metadata.json").write_text("[]")
        assert files.text("metadata.json", 100) == "[]"

    @pytest.mark.parametrize("fault", [("cut", 300_000), ("stall", 300_000)])
    @pytest.mark.parametrize("tags", [True, False])
    def test_a_broken_transfer_continues_where_it_ended(self, served, tmp_path, fault, tags):
        with FaultyServer(served, tags=tags) as server:
            server.faults["s-1.tar"].append(fault)
            assert read(remote(server, tmp_path).path(*described(1))) == content(1)
            assert server.ranges[0] == ""
            assert server.ranges[1].startswith("bytes=")
            assert len(server.ranges) == 2

    @pytest.mark.parametrize("fault", [("cut", 300_000), ("stall", 300_000)])
    def test_or_from_the_start_where_the_server_cannot(self, served, tmp_path, fault):
        with FaultyServer(served, resumes=False) as server:
            server.faults["s-1.tar"].append(fault)
            assert read(remote(server, tmp_path).path(*described(1))) == content(1)
            assert server.count("s-1.tar") == 2

    def test_a_failure_in_between_loses_nothing_of_what_came(self, server, tmp_path):
        server.faults["s-1.tar"].extend([("cut", 300_000), 500])
        assert read(remote(server, tmp_path).path(*described(1))) == content(1)
        assert server.ranges[2] == server.ranges[1] != ""

    @pytest.mark.parametrize("fault", [500, 503, 429, 408, "wrong", "longer", ("cut", 0),
                                       ("stall", 0)])
    def test_what_may_pass_is_tried_again(self, server, tmp_path, fault):
        server.faults["s-1.tar"].extend([fault, fault])
        assert read(remote(server, tmp_path).path(*described(1))) == content(1)
        assert server.count("s-1.tar") == 3

    @pytest.mark.parametrize(("fault", "what"), [
        (500, "the server answered 500 Internal Server Error"),
        ("wrong", "its MD5 is [0-9a-f]{32}, expected "),
        ("longer", f"it has {SIZE + 4} bytes, expected {SIZE}"),
        (("cut", 0), "the connection broke"),
        (("stall", 0), "the server did not respond in time")])
    def test_for_so_long_and_no_longer(self, server, tmp_path, fault, what):
        server.always = fault
        files = remote(server, tmp_path)
        with pytest.raises(DataError, match=f"'{server.url}/s-1.tar': {what}.*attempt 3 of 3"):
            files.path(*described(1))
        assert held(tmp_path) == []
        with pytest.raises(DataError, match="attempt 3 of 3"):
            files.path(*described(1))
        assert server.count("s-1.tar") == 3, "what has just failed is not requested again"

    def test_a_server_may_request_a_pause_within_limits(self, server, tmp_path):
        server.faults["s-1.tar"].append(("later", 1000))
        begin = time.monotonic()
        files = remote(server, tmp_path, patience=Patience(pause=0.01, longest_pause=0.3))
        assert read(files.path(*described(1))) == content(1)
        assert 0.3 <= time.monotonic() - begin < 10

    @pytest.mark.parametrize("url", ["file:///x", "http://", "http://[", "HOST", "/data"])
    def test_what_is_no_address_is_refused(self, url):
        with pytest.raises(UsageError, match="is not an http or https address"):
            RemoteFiles(url)

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_what_does_not_pass_is_not(self, server, tmp_path, status):
        server.always = status
        with pytest.raises(DataError, match=f"s-1.tar': the server answered {status}") as caught:
            remote(server, tmp_path).path(*described(1))
        assert "address" in caught.value.hint
        assert server.count("s-1.tar") == 1

    def test_a_server_that_is_gone(self, server, tmp_path):
        files = remote(server, tmp_path)
        server.stop()
        with pytest.raises(DataError, match=f"{server.url}/metadata.json': the connection to the "
                                            r"server failed \(attempt 3 of 3\)"):
            files.text("metadata.json", 100)

    def test_a_file_that_was_replaced_is_another_one(self, server, served, tmp_path):
        files = remote(server, tmp_path)
        files.path(*described(1))
        (served / "s-1.tar").write_bytes(content(7))
        name, size, _ = described(1)
        assert read(files.path(name, size, described(7)[2])) == content(7)

    def test_the_query_goes_with_every_file_and_no_message_shows_secrets(self, server, tmp_path):
        address = server.url.replace("//", "//me:secret@") + "/none/?token=hidden"
        files = RemoteFiles(address, str(tmp_path), patience=PATIENCE)
        assert files.url("a b.tar") == address.replace("/?", "/a%20b.tar?")
        with pytest.raises(DataError, match=f"'{server.url}/none/s-1.tar'") as caught:
            files.path(*described(1))
        assert "secret" not in str(caught.value)
        assert "hidden" not in str(caught.value)


class TestSharing:
    def test_threads_download_once(self, server, tmp_path):
        files = remote(server, tmp_path)
        server.faults["s-1.tar"].append(("slow", 1000))
        with ThreadPoolExecutor(4) as pool:
            paths = [pool.submit(files.path, *described(1)) for _ in range(4)]
            assert server.reached.wait(10)
            server.go.set()
            assert len({path.result() for path in paths}) == 1
        assert server.count("s-1.tar") == 1

    def test_processes_download_once(self, server, tmp_path):
        server.faults["s-1.tar"].append(("slow", 1000))
        running = [_process(server, tmp_path, patience="Patience()") for _ in range(3)]
        assert server.reached.wait(20)
        time.sleep(0.2)
        server.go.set()
        for process in running:
            out, error = process.communicate(timeout=30)
            assert out == hashlib.md5(content(1)).hexdigest().encode(), error
        assert server.count("s-1.tar") == 1

    def test_a_killed_download_neither_blocks_nor_passes_for_whole(self, server, tmp_path):
        server.faults["s-1.tar"].append(("stall", 300_000))
        victim = _process(server, tmp_path, patience="Patience()")
        assert server.reached.wait(20)
        while not any(path.suffix == ".part" for path in held(tmp_path)):
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        # it does not count for the bound either, whoever comes first
        files = remote(server, tmp_path, room=SIZE)
        assert read(files.path(*described(2))) == content(2)
        assert [path.suffix for path in held(tmp_path)] == [".tar"]
        assert read(files.path(*described(1))) == content(1)

    def test_one_that_gets_no_further_is_named(self, server, tmp_path):
        server.faults["s-1.tar"].append(("stall", 300_000))
        holder = _process(server, tmp_path, patience="Patience()")
        assert server.reached.wait(20)
        while not any(path.suffix == ".part" for path in held(tmp_path)):
            time.sleep(0.01)
        try:
            waiting = remote(server, tmp_path, patience=Patience(0.1, 1, 0.0, 0.1))
            with pytest.raises(DataError, match=r"another process is fetching .*s-1\.tar") as found:
                waiting.path(*described(1))
            assert ".lock" in found.value.hint
        finally:
            holder.kill()
            holder.communicate()

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_it_survives_a_fork_and_pickling(self, server, tmp_path):
        files = remote(server, tmp_path)
        files.path(*described(1))
        assert read(pickle.loads(pickle.dumps(files)).path(*described(2))) == content(2)
        child = multiprocessing.get_context("fork").Process(target=files.path, args=described(3))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert sorted(server.requests) == ["s-1.tar", "s-2.tar", "s-3.tar"]


class TestBound:
    def test_the_least_recently_used_leaves_first(self, server, tmp_path):
        files = remote(server, tmp_path, room=3 * SIZE)
        for number in (0, 1, 2, 0, 3):
            files.path(*described(number))
            time.sleep(0.02)  # files' times have a resolution
            assert sum(path.stat().st_size for path in held(tmp_path)) <= 3 * SIZE
        for number, requests in ((0, 1), (2, 1), (3, 1), (1, 2)):
            files.path(*described(number))
            assert server.count(f"s-{number}.tar") == requests

    def test_it_holds_for_all_that_download_at_once(self, server, tmp_path):
        files = remote(server, tmp_path, room=2 * SIZE)
        most = []
        over = threading.Event()

        def watch():
            while not over.wait(0.001):
                sizes = []
                for path in held(tmp_path):
                    try:
                        sizes.append(path.stat().st_size)
                    except FileNotFoundError:
                        continue
                most.append(sum(sizes))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(5) as pool:
            assert len(list(pool.map(lambda number: files.path(*described(number)),
                                     range(5)))) == 5
        over.set()
        watcher.join()
        assert 0 < max(most) <= 3 * SIZE  # a file may be counted while it is being replaced
        assert sum(path.stat().st_size for path in held(tmp_path)) <= 2 * SIZE

    def test_an_open_file_stays_readable(self, server, tmp_path):
        files = remote(server, tmp_path, room=SIZE)
        with open(files.path(*described(1)), "rb") as file:
            files.path(*described(2))
            assert len(held(tmp_path)) == 1
            assert file.read() == content(1)

    def test_a_file_larger_than_the_cache(self, server, tmp_path):
        with pytest.raises(DataError, match=f"has {SIZE} bytes, more than the cache .*1000") as e:
            remote(server, tmp_path, room=1000).path(*described(1))
        assert f"'--data-cache-size' of {SIZE}" in e.value.hint
        assert server.requests == []

    def test_nothing_else_in_the_folder_is_touched(self, server, tmp_path):
        other = tmp_path / "cache" / "thesis.tex"
        other.parent.mkdir()
        other.write_bytes(b"x" * 2 * SIZE)
        files = remote(server, tmp_path, room=SIZE)
        files.path(*described(1))
        files.path(*described(2))
        assert other.exists()
        assert len(held(tmp_path)) == 2

    def test_by_default_it_is_a_tenth_of_the_free_space(self, server, tmp_path, monkeypatch):
        class Usage:
            free = 25 * SIZE

        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
        files = remote(server, tmp_path)
        for number in range(4):
            files.path(*described(number))
        assert len(held(tmp_path)) == 2

    def test_a_full_disk(self, server, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(shard_cache, "fetched", full)
        with pytest.raises(DataError, match=f"'{tmp_path}.*cache': No space left") as caught:
            remote(server, tmp_path).path(*described(1))
        assert "'--data-cache-size'" in caught.value.hint
        assert "'--data-cache-dir'" in caught.value.hint
        assert held(tmp_path) == []


class TestAhead:
    def test_it_is_there_when_it_is_needed(self, server, tmp_path):
        files = remote(server, tmp_path)
        files.ahead(*described(1))
        assert server.reached.wait(10)
        assert read(files.path(*described(1))) == content(1)
        files.ahead(*described(1))
        assert server.count("s-1.tar") == 1

    def test_one_at_a_time(self, server, tmp_path):
        server.faults["s-1.tar"].append(("slow", 1000))
        files = remote(server, tmp_path, patience=Patience())
        for number in (1, 2, 3):
            files.ahead(*described(number))
        assert server.reached.wait(10)
        server.go.set()
        files.path(*described(1))
        assert server.requests == ["s-1.tar"]

    def test_its_failure_is_tried_again_by_who_needs_the_file(self, server, tmp_path):
        server.faults["s-1.tar"].extend([404])
        files = remote(server, tmp_path)
        files.ahead(*described(1))
        for thread in threading.enumerate():
            if thread.name == "ipucnn-fetch":
                thread.join()
        assert read(files.path(*described(1))) == content(1)

    def test_the_process_ends_although_the_server_is_silent(self, server, tmp_path):
        server.always = ("stall", 1000)
        process = _process(server, tmp_path, patience="Patience()", call="ahead")
        assert server.reached.wait(20)
        _, error = process.communicate(b"go on\n", timeout=10)
        assert (process.returncode, error) == (0, b"")

    def test_an_interrupt_ends_waiting(self, server, tmp_path):
        server.always = ("stall", 1000)
        process = _process(server, tmp_path, patience="Patience()")
        try:
            assert server.reached.wait(60)
            time.sleep(0.5)  # now it waits for the rest
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)  # shorter than the patience of the download
        finally:
            process.kill()
        assert process.returncode != 0
        assert b"KeyboardInterrupt" in error


def _process(server, tmp_path, patience, call="path"):
    """Begin a process that requests a file, and prints its hash or waits for a line."""
    program = f"""
import hashlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as after `nohup`
from ipucnn.data.remote.shard_cache import RemoteFiles
from ipucnn.data.remote.transfer import Patience
from ipucnn.plugins.datasets._webdataset.shard_metadata import Shard
from ipucnn.plugins.datasets._webdataset.source import Server
files = RemoteFiles({server.url!r}, {str(tmp_path / 'cache')!r}, None, {patience})
found = files.{call}(*{described(1)!r})
if found is None:
    sys.stdin.readline()
else:
    sys.stdout.write(hashlib.md5(open(found, "rb").read()).hexdigest())
"""
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class TestWhoCanTouchIt:
    def source(self, server, tmp_path):
        return Server(server.url, str(tmp_path / "cache"), None)

    def shard(self, number):
        name, size, md5 = described(number)
        return Shard(name, 1, size, md5)

    def test_the_folders_are_the_users_alone(self, server, tmp_path):
        (tmp_path / "cache" / "streams").mkdir(parents=True)
        (tmp_path / "cache" / "streams").chmod(0o777)
        path = Path(remote(server, tmp_path).path(*described(1)))
        assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent,
                path.parent.parent)] == [0o600, 0o700, 0o700]

    def test_a_folder_of_another_user_or_a_link_is_refused(self, server, tmp_path, monkeypatch):
        (tmp_path / "else").mkdir()
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "streams").symlink_to(tmp_path / "else")
        with pytest.raises(DataError, match="is not a folder"):
            remote(server, tmp_path).path(*described(1))
        assert not list((tmp_path / "else").iterdir())
        (tmp_path / "cache" / "streams").unlink()
        (tmp_path / "cache" / "streams").mkdir()
        monkeypatch.setattr(files, "is_own", lambda _: False)
        with pytest.raises(DataError, match="belongs to another user"):
            remote(server, tmp_path).path(*described(1))

    def test_no_link_redirects_a_download(self, server, tmp_path):
        path = Path(remote(server, tmp_path).path(*described(1)))
        path.unlink()
        (tmp_path / "precious").write_text("kept")
        Path(f"{path}.part").symlink_to(tmp_path / "precious")
        assert read(remote(server, tmp_path).path(*described(1))) == content(1)
        assert (tmp_path / "precious").read_text() == "kept"

    def test_a_link_is_no_copy(self, server, tmp_path):
        path = Path(remote(server, tmp_path).path(*described(1)))
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        file = self.source(server, tmp_path).open(self.shard(1))
        assert file.near(0, SIZE) == content(1)
        assert not path.is_symlink()

    def test_a_copy_that_was_changed_is_fetched_again(self, server, tmp_path):
        path = Path(remote(server, tmp_path).path(*described(1)))
        path.write_bytes(content(2))
        source = self.source(server, tmp_path)
        assert source.open(self.shard(1)).near(0, SIZE) == content(1)
        assert server.count(described(1)[0]) == 2
        assert source.open(self.shard(1)).near(0, 1) == content(1)[:1]

    def test_an_endless_answer_is_not_received(self, server, served, tmp_path):
        (served / "metadata.json").write_bytes(b" " * 2_000_000)
        with pytest.raises(DataError, match="it has more than 100 bytes, the limit"):
            remote(server, tmp_path).text("metadata.json", 100)
        assert server.count("metadata.json") == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_redirect_to_another_host_loses_credentials(tmp_path, host):
    """A host with another port is another host."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            if len(seen) == 1:
                self.send_response(302)
                self.send_header("Location", f"http://{host}:{other.server_address[1]}/there")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one, \
            ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        for running in (one, other):
            threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        files = RemoteFiles(f"http://me:secret@127.0.0.1:{one.server_address[1]}/d?token=x",
                            str(tmp_path), None, PATIENCE)
        assert files.text("metadata.json", 100) == "{}"
        for running in (one, other):
            running.shutdown()
    assert seen[0][1].startswith("Basic ")
    assert seen[1] == ("/there", None)
