"""Indexes the samples of a tar archive for random access."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from typing import Any, BinaryIO, Callable, Dict, List, NamedTuple, Optional, Tuple, Type

import numpy

_BLOCK = 512
_CHUNK = 1 << 20
_WINDOW = 16 * _BLOCK  # holds the small members of a sample, and the headers around them
_FILE, _OLD_FILE, _FOLDER, _EXTENDED = b"0", b"\0", b"5", b"x"
_EXTENDING = (b"x", b"g", b"X", b"L", b"K")  # members that continue a header
_LONGEST_HEADER = 1 << 16
_OCTAL = re.compile(rb"[0-7]{1,12}")
_TIMES = re.compile(rb"(\d+ [mac]time=[\d.]+\n)*")  # the content of most extended headers
_CUT_OFF = ("end of data", "empty header", "truncated header")  # messages of `tarfile`
_SKIPPED = re.compile(r"__[^/]*__($|/)")  # ignored by the webdataset library


class Unreadable(Exception):
    """A shard that cannot be read; the message is the reason, `hint` the suggested fix."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class Member(NamedTuple):
    """A file in an archive: its offset, its size, and its content if already read."""

    offset: int
    size: int
    content: Optional[bytes] = None


class Sample(NamedTuple):
    """Files of an archive that form one sample, by their lower-case extensions."""

    key: str
    members: Dict[str, Member]


class File:
    """An open file for concurrent reading; it is closed with its last reference.

    Args:
        path: of the file.
        follow: whether it may be a link.

    Attributes:
        size: in bytes.
        identity: identifies the opened file, even if it is replaced later.

    Raises:
        Unreadable: it cannot be opened.
    """

    def __init__(self, path: str, follow: bool = True) -> None:
        self._descriptor: Optional[int] = None
        self.path = path
        # opening a pipe would block without the first of these
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | flags | (
                0 if follow else getattr(os, "O_NOFOLLOW", 0)))
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise _unreadable(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is not a file")
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino, status.st_size)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone at exit
        if self._descriptor is not None:
            close(self._descriptor)

    def near(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, fewer at the end of the file."""
        assert self._descriptor is not None
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise _unreadable(error) from error

    def stream(self) -> BinaryIO:
        """Return the same file as a stream, from its beginning."""
        assert self._descriptor is not None
        stream = os.fdopen(os.dup(self._descriptor), "rb")
        stream.seek(0)
        return stream

    def md5(self) -> str:
        """Return the MD5 of the file in hexadecimal digits."""
        digest = hashlib.md5()
        for offset in range(0, self.size, _CHUNK):
            digest.update(self.near(offset, _CHUNK))
        return digest.hexdigest()

    def read(self, member: Member) -> bytes:
        """Return the content of a member.

        Raises:
            Unreadable: the file has become shorter, or its disk failed.
        """
        content = self.near(member.offset, member.size) if member.content is None \
            else member.content
        if len(content) < member.size:
            raise _truncated(member.offset + len(content))
        return content


def samples(file: File) -> List[Sample]:
    """Return the samples of an archive, in order, grouped as the webdataset library does.

    Raises:
        Unreadable: it is not a tar archive, is truncated or damaged.
    """
    from webdataset.tariterators import base_plus_ext

    try:
        members = _walked(file)
    except ValueError:
        members = _listed(file)
    found: List[Sample] = []
    for name, member in members:
        if _SKIPPED.match(name):
            continue
        key, extension = base_plus_ext(name)
        if key is None:
            continue
        if not found or found[-1].key != key:
            found.append(Sample(key, {}))
        files, extension = found[-1].members, extension.lower()
        if extension in files:
            raise Unreadable(f"it has {name!r} twice")
        files[extension] = member
    return found


def _walked(file: File) -> List[Tuple[str, Member]]:
    """Return the files of a common archive, ten times faster than `tarfile` does.

    Raises:
        ValueError: it has unusual features or other faults, for which `tarfile` is used.
        Unreadable: it is truncated.

    Source: POSIX.1-2008, pax, "ustar Interchange Format".
    """
    found: List[Tuple[str, Member]] = []
    headers: List[bytes] = []
    sums: List[int] = []
    window, start, position = b"", 0, 0
    kind, cut_off = b"", False
    while True:
        if position + _BLOCK > start + len(window):
            window, start = file.near(position, _WINDOW), position
            if found and kind != _EXTENDED and position == file.size:
                break  # some writers omit the end-of-archive blocks
            cut_off = len(window) < _BLOCK
            if cut_off:
                break
        at = position - start
        header = window[at:at + _BLOCK]
        if not header.strip(b"\0"):
            break
        kind = header[156:157]
        name, size, checksum = _fields(header)
        headers.append(header)
        sums.append(checksum)
        position += _BLOCK
        if kind == _FOLDER:
            continue
        cut_off = position + size > file.size
        if cut_off:
            break
        at += _BLOCK
        content = window[at:at + size] if at + size <= len(window) else None
        if kind == _EXTENDED:
            if size > _LONGEST_HEADER or not _TIMES.fullmatch(
                    content or file.near(position, size)):
                raise ValueError("an extended header with more than times")
        elif kind not in (_FILE, _OLD_FILE) or name.endswith("/") or header[345]:
            raise ValueError("a member of another kind than a file")
        else:
            found.append((name, Member(position, size, content)))
        position += -(-size // _BLOCK) * _BLOCK
    if _checksums(headers) != sums:
        raise ValueError("a wrong checksum")
    if cut_off:
        raise _truncated(file.size)
    return found


def _fields(header: bytes) -> Tuple[str, int, int]:
    """Return the name, size and checksum of a member; raise `ValueError` if they are unusual."""
    return (header[:header.index(b"\0", 0, 101)].decode(), _number(header[124:136]),
            _number(header[148:156]))


def _number(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    if not _OCTAL.fullmatch(digits):  # a sign and underscores are fine for `int`
        raise ValueError("a number that is not octal")
    return int(digits, 8)


def _checksums(headers: List[bytes]) -> List[int]:
    """Return the checksums of headers: sums of their bytes, with the checksum as spaces."""
    blocks = numpy.frombuffer(b"".join(headers), numpy.uint8).reshape(-1, _BLOCK)
    sums = blocks.sum(1, dtype=int) - blocks[:, 148:156].sum(1, dtype=int) + 8 * ord(" ")
    found: List[int] = sums.tolist()
    return found


def _listed(file: File) -> List[Tuple[str, Member]]:
    """Return the files of any archive that `tarfile` reads; every size in a header is checked."""
    found = []
    try:
        with file.stream() as raw, tarfile.open(fileobj=raw, mode="r:",
                                                        tarinfo=_checking(raw)) as tar:
            for info in tar:
                # an extended header may have given it another size
                _check_size(info.size, info.offset)
                if not info.isreg():
                    continue
                if info.issparse():
                    raise Unreadable(f"{info.name!r} in it is a sparse file")
                if info.offset_data + info.size > file.size:
                    raise _truncated(file.size)
                found.append((info.name, Member(info.offset_data, info.size)))
            end = int(tar.offset)  # type: ignore[attr-defined]
    except OSError as error:
        raise _unreadable(error) from error
    except Unreadable:
        raise
    except Exception as error:  # `tarfile` raises almost any exception on a damaged header
        if str(error).endswith(_CUT_OFF):
            raise _truncated(file.size) from error
        raise Unreadable(f"it is no uncompressed tar archive, or damaged ({error})") from error
    rest = file.near(end, _BLOCK)
    if rest.strip(b"\0"):  # `tarfile` stops there silently
        raise _truncated(file.size) if len(rest) < _BLOCK else Unreadable(
            f"it is damaged at byte {end}")
    return found


def _checking(raw: BinaryIO) -> Type[tarfile.TarInfo]:
    """Return a class of headers with checked sizes.

    With a negative size, `tarfile` would loop forever, and with a large size of an extended header
    it would read the whole file.
    """
    class Checked(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: Any, errors: Any) -> Any:
            info = super().frombuf(buf, encoding, errors)
            offset = raw.tell() - _BLOCK
            _check_size(info.size, offset)
            if info.type in _EXTENDING and info.size > _LONGEST_HEADER:
                raise Unreadable(f"the header at byte {offset:,} is continued in {info.size:,} "
                                 f"bytes, more than {_LONGEST_HEADER:,}")
            return info

    return Checked


def _check_size(size: int, offset: int) -> None:
    if size < 0:
        raise Unreadable(f"the header at byte {offset:,} has a negative size ({size})")


def _truncated(size: int) -> Unreadable:
    return Unreadable(f"it is truncated, at {size:,} bytes")


def _unreadable(error: OSError) -> Unreadable:
    return Unreadable((error.strerror or str(error)).lower())
