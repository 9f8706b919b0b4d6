"""An in-memory fsspec store that fails on request: `faulty://`."""

from __future__ import annotations

import threading

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FaultyStore(MemoryFileSystem):
    """A store in memory.

    Each call takes the next of `faults[name of the method]`: an exception to raise, a number of
    bytes after which it truncates, `"stall"` for one that never answers, or `"well"`.
    `calls` has the methods and paths. With `calls_left`, it is gone after so many calls, and what
    was being written then stays in part.
    """

    protocol = "faulty"
    store: dict = {}
    pseudo_dirs = [""]
    cachable = False
    faults: dict = {}
    calls: list = []
    calls_left = None
    ended = threading.Event()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("faulty://", "").partition("?")[0])

    @classmethod
    def reset(cls):
        cls.ended.set()
        cls.ended = threading.Event()
        cls.calls_left = None
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.faults.clear()
        cls.calls.clear()

    @classmethod
    def fail(cls, method, *faults):
        cls.faults[method] = list(faults)

    def _next(self, method, path):
        self.calls.append((method, path))
        if self.calls_left is not None:
            type(self).calls_left = self.calls_left - 1
            if self.calls_left < 0:
                raise ConnectionError("gone")
        found = self.faults[method].pop(0) if self.faults.get(method) else "well"
        if found == "stall":
            self.ended.wait(30)
            raise TimeoutError("ended")
        if isinstance(found, BaseException):
            raise found
        return found

    def info(self, path, **kwargs):
        self._next("info", path)
        return super().info(path, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        self._next("ls", path)
        return super().ls(path, detail=detail, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        cut = self._next("cat_file", path)
        content = super().cat_file(path, start=start, end=end, **kwargs)
        return content[:cut] if isinstance(cut, int) else content

    def put_file(self, lpath, rpath, **kwargs):
        cut = self._next("put_file", rpath)
        with open(lpath, "rb") as file:
            content = file.read()
        if self.calls_left == 0:
            self.pipe_file(rpath, content[:len(content) // 2])
            raise ConnectionError("gone")
        self.pipe_file(rpath, content[:cut] if isinstance(cut, int) else content)

    def mv(self, path1, path2, **kwargs):
        self._next("mv", path2)
        self.pipe_file(path2, super().cat_file(path1))
        super().rm_file(path1)

    def rm_file(self, path):
        self._next("rm_file", path)
        super().rm_file(path)


fsspec.register_implementation("faulty", FaultyStore, clobber=True)
