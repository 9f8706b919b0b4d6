"""A real HTTP server on localhost that fails on request."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import threading
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FaultyServer:
    """Serves the files of a folder.

    Each request takes the next of `faults[name]`, then of `always`, and is served well when there
    is none. `requests` has the requested names, `ranges` the bytes.

    A fault is a status (500), `("later", n)` for 503 and a wish for n seconds' pause, `("cut", n)`
    for a connection that ends after n bytes of the body, `("stall", n)` for one that falls silent
    there, `("slow", n)` for a pause there until `go` is set, `"wrong"` for other content of the
    same length, `"longer"` for more of it, `"dies"` for a server that answers and is gone, or
    `"well"` for none.
    """

    def __init__(self, folder, resumes=True, tags=True):
        self.folder = Path(folder)
        self.resumes = resumes
        self.tags = tags
        self.faults = defaultdict(deque)
        self.always = None
        self.requests = []
        self.ranges = []
        self.go = threading.Event()
        self.reached = threading.Event()
        self._ended = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner._answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """End: from now on connections are refused."""
        self._ended.set()
        self.go.set()
        self._close()

    def _close(self):
        self._server.shutdown()
        self._server.server_close()

    def count(self, name):
        """Return how often a file was requested."""
        return self.requests.count(name)

    def _answer(self, handler):
        name = handler.path.partition("?")[0].lstrip("/")
        wanted = handler.headers.get("Range", "")
        self.requests.append(name)
        self.ranges.append(wanted)
        fault = self.faults[name].popleft() if self.faults[name] else self.always
        path = self.folder / name
        if isinstance(fault, tuple) and fault[0] == "later":
            handler.send_response(503)
            handler.send_header("Retry-After", str(fault[1]))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if isinstance(fault, int) or not path.is_file():
            handler.send_error(fault or 404)
            return
        body = path.read_bytes()
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        if fault == "wrong":
            body = bytes(255 - byte for byte in body)
        elif fault == "longer":
            body += b"more"
        elif fault == "dies":
            self._close()
        start = self._start(wanted, handler.headers.get("If-Range", tag) == tag)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.tags:
            handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        what, until = fault if isinstance(fault, tuple) else ("", len(body))
        try:
            handler.wfile.write(body[start:until])
            handler.wfile.flush()
            self.reached.set()
            if what == "stall":
                self._ended.wait(30)
            elif what == "slow":
                self.go.wait(30)
                handler.wfile.write(body[until:])
        except OSError:  # the other side has gone
            pass

    def _start(self, wanted, same):
        found = re.fullmatch(r"bytes=(\d+)-", wanted)
        return int(found.group(1)) if found and self.resumes and same else 0


class FaultyProxy:
    """Forwards requests to another server, and fails those listed in `faults`.

    Each request for an object takes the next of `faults[its last name]`: a status, `("cut", n)`,
    `("stall", n)` as in `FaultyServer`, or `"well"`.
    """

    def __init__(self, host, port):
        self.faults = defaultdict(deque)
        self.requests = []
        self._ended = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                name = self.path.partition("?")[0].rpartition("/")[2]
                owner.requests.append((self.command, name))
                fault = owner.faults[name].popleft() if owner.faults[name] else "well"
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                backend = http.client.HTTPConnection(host, port, timeout=30)
                backend.request(self.command, self.path, body, dict(self.headers))
                found = backend.getresponse()
                content = found.read()
                self.send_response(found.status)
                for key, value in found.getheaders():
                    if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(key, value)
                length = found.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(content)))
                self.end_headers()
                what, until = fault if isinstance(fault, tuple) else ("", len(content))
                with contextlib.suppress(OSError):
                    self.wfile.write(content[:until])
                    self.wfile.flush()
                if what == "stall":
                    owner._ended.wait(30)
                self.close_connection = bool(what)
                backend.close()

            def __getattr__(self, name):  # do_GET, do_PUT ...
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """End."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
