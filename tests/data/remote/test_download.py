import errno
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ipucnn.core.errors import DataError
from ipucnn.data.remote import download
from ipucnn.data.remote.download import fetch

BODY = b"weights " * 5000
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def url(file_server):
    file_server.files["/dir/net.pth"] = BODY
    return f"{file_server.url}/dir/net.pth"


def test_a_file_is_fetched_once(url, file_server, tmp_path):
    folder = tmp_path / "made" / "on demand"
    path = fetch(url, folder, DIGEST[:8])
    assert path == folder / "net.pth"
    assert path.read_bytes() == BODY
    assert fetch(url, folder, DIGEST[:8].upper()) == path
    assert file_server.requests == ["/dir/net.pth"]
    assert os.listdir(folder) == ["net.pth"]


def test_the_name_can_be_chosen_and_the_hash_left_out(url, tmp_path):
    assert fetch(url + "?signed=1", tmp_path, filename="other.bin").name == "other.bin"
    assert fetch(url + "?signed=1#part", tmp_path, DIGEST, "again.bin").read_bytes() == BODY


def test_a_wrong_hash_leaves_nothing(url, tmp_path):
    with pytest.raises(DataError, match=rf"net.pth' has hash {DIGEST[:8]}, expected 00000000"):
        fetch(url, tmp_path, "00000000")
    assert os.listdir(tmp_path) == []


def test_a_damaged_copy_is_fetched_again(url, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"damaged")
    assert fetch(url, tmp_path, DIGEST).read_bytes() == BODY


def test_a_damaged_copy_stays_when_no_better_one_comes(url, file_server, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"damaged")
    file_server.files.clear()
    with pytest.raises(DataError, match="404"):
        fetch(url, tmp_path, DIGEST)
    assert os.listdir(tmp_path) == ["net.pth"]


def test_a_truncated_body_is_an_error_even_without_a_hash(url, file_server, tmp_path):
    file_server.cut = 1000
    with pytest.raises(DataError, match=r"net.pth': the connection broke before the end"):
        fetch(url, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_refused_connection(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=f"'http://127.0.0.1:{port}/x.pth': the connection") as e:
        fetch(f"http://127.0.0.1:{port}/x.pth", tmp_path)
    assert "network" in e.value.hint
    assert "\n" not in e.value.message


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_http_error(url, file_server, tmp_path, status):
    file_server.files["/dir/net.pth"] = status
    with pytest.raises(DataError, match=f"dir/net.pth': the server answered {status}"):
        fetch(url, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_silent_server(tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(DataError, match="did not respond in time"):
            fetch(f"http://127.0.0.1:{mute.getsockname()[1]}/x", tmp_path, timeout=0.2)


@pytest.mark.parametrize("url", ["ftp://example.invalid/x", "no address"])
def test_an_address_that_is_none(url, tmp_path):
    with pytest.raises(DataError, match=f"cannot fetch '{url}'"):
        fetch(url, tmp_path, filename="x")


@pytest.mark.parametrize("place", ["http://[", "http://[::1"])
def test_a_redirect_to_an_address_that_is_none(tmp_path, place):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(DataError, match="cannot fetch"):
            fetch(f"http://127.0.0.1:{server.server_address[1]}/x", tmp_path)
        server.shutdown()


def test_a_folder_that_cannot_be_made(url, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot store .*net.pth") as caught:
        fetch(url, tmp_path / "file")
    assert "IPUCNN_CACHE" in caught.value.hint


def test_a_full_disk(url, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download.os, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        fetch(url, tmp_path, DIGEST)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(url, tmp_path, monkeypatch):
    def interrupted(_, file, *__):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "transfer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(url, tmp_path, DIGEST)
    assert os.listdir(tmp_path) == []
