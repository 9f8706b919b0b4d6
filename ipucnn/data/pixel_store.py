"""A file of decoded pixels that several threads and processes fill and read.

Two files: the pixels of one image after the other, and a log of fixed-size entries with
their positions. Data is only appended, pixels first. An entry contains a checksum of its pixels,
which is verified once per process, so incomplete data of a killed process is not used.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from ipucnn.data.resize import Pixels

log = logging.getLogger("ipucnn.cache")

FACTORS = {1: 0, 2: 1, 4: 2, 8: 3}
"""The slot of an image that its decoder has reduced by a factor."""

PREPARED, ONLY, NEVER = 4, 5, 6
"""Slots of an image at the input size and of an image that decoders do not reduce, and the mark of
a damaged image, which is not stored."""

_FIELDS = ["image", "offset", "height", "width", "rows", "columns", "pixels", "slot", "check"]
_ENTRY = struct.Struct("<QQIIIIIII")
_MAGIC = 0x1AC4E001
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


def supported() -> bool:
    """Return whether this system can share such files among processes."""
    return hasattr(os, "preadv") and hasattr(os, "pread")


class PixelStore:
    """Decoded pixels of the images of one dataset.

    Thread-safe. It can be pickled, and used after a fork while this process exists.

    Args:
        pixels: file of the pixels; created if it does not exist.
        entries: file of the entries.
        count: number of images.
        limit: bytes up to which pixels are added.
        key: 16 bytes that identify the content.

    Raises:
        OSError: a file cannot be opened.
        ValueError: the files have another key.
    """

    def __init__(self, pixels: str, entries: str, count: int, limit: int, key: bytes) -> None:
        self.places = (pixels, entries)
        self.count, self.limit, self.key = count, limit, key
        self._begin()

    def _begin(self) -> None:
        import numpy

        self._process = os.getpid()
        self._lock = Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._pixels = os.open(self.places[0], flags, 0o600)
        self._entries = os.open(self.places[1], flags, 0o600)
        _shared_lock(self._entries)
        self._read = 0
        self._end = os.fstat(self._pixels).st_size
        self._sizes = numpy.zeros((self.count, 2), numpy.uint32)
        self._kinds = numpy.zeros(self.count, numpy.uint8)
        self._slots: Dict[int, Any] = {}
        self.full = ""
        head = self.key + bytes(_ENTRY.size - len(self.key))
        if os.fstat(self._entries).st_size == 0:
            os.write(self._entries, head)
        if os.pread(self._entries, _ENTRY.size, 0) != head:
            self.close()
            raise ValueError("it is of other images")
        self._read = _ENTRY.size
        self.refresh()

    def __getstate__(self) -> Dict[str, Any]:
        return {name: getattr(self, name) for name in ("places", "count", "limit", "key")}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def close(self) -> None:
        """Close the files."""
        for file in (self._pixels, self._entries):
            with suppress(OSError):
                os.close(file)
        self._pixels = self._entries = -1

    @property
    def bytes(self) -> int:
        """Total size of the stored pixels of all processes, as of the last read of the entries."""
        return self._end

    def size(self, image: int) -> Optional[Tuple[int, int]]:
        """Return height and width of a whole image that decoders can reduce, if it is known."""
        if not self._kinds[image]:
            self.refresh()
        if self._kinds[image] != _kind(FACTORS[1]):
            return None
        height, width = self._sizes[image].tolist()
        return height, width

    def never(self, image: int) -> bool:
        """Return whether an image is marked as not stored."""
        return bool(self._kinds[image] == _kind(NEVER))

    def read(self, image: int, slot: int) -> Optional[Pixels]:
        """Return stored pixels, uint8 `(height, width, 3)`; None where there are none."""
        import numpy

        found = self._found(image, slot)
        if found is None:
            self.refresh()
            found = self._found(image, slot)
            if found is None:
                return None
        offset, height, width, check, checked = found
        pixels = numpy.empty((height, width, 3), numpy.uint8)
        try:
            length = os.preadv(self._pixels, [pixels.data], offset)
        except OSError as error:
            log.info("image %d of the cache cannot be read: %s", image, error)
            length = -1
        if length != pixels.nbytes or (not checked and zlib.crc32(pixels.data) != check):
            self._slots[slot]["width"][image] = 0  # it is decoded again
            return None
        if not checked:
            self._slots[slot]["checked"][image] = True
        return pixels

    def add(self, image: int, slot: int, pixels: Pixels, size: Tuple[int, int]) -> None:
        """Store pixels, if there is room for them.

        Args:
            image: index of the image.
            slot: of `FACTORS`, or `PREPARED` or `ONLY`.
            pixels: uint8 `(height, width, 3)`.
            size: height and width of the whole image.
        """
        import numpy

        pixels = numpy.ascontiguousarray(pixels)
        self._append(image, slot, pixels.data, (*pixels.shape[:2], *size))

    def leave_out(self, image: int) -> None:
        """Mark an image that must not be stored."""
        self._append(image, NEVER, memoryview(b""), (0, 0, 0, 0))

    def stored(self, images: Sequence[int]) -> int:
        """Return the bytes of the pixels stored of some images."""
        self.refresh()
        return sum(3 * found[1] * found[2] for image in images
                   for slot in self._slots for found in [self._found(image, slot)]
                   if found is not None)

    def refresh(self) -> None:
        """Read the entries that were added since the last time, by any process."""
        import numpy

        with self._lock:
            if self._process != os.getpid():
                self._after_fork()
            length = os.fstat(self._entries).st_size - self._read
            if length < _ENTRY.size:
                return
            content = os.pread(self._entries, length // _ENTRY.size * _ENTRY.size, self._read)
            content = content[:len(content) // _ENTRY.size * _ENTRY.size]
            self._read += len(content)
            words = numpy.frombuffer(content, "<u4").reshape(-1, _ENTRY.size // 4)
            good = numpy.bitwise_xor.reduce(words[:, :-1], axis=1) ^ _MAGIC == words[:, -1]
            self._take(numpy.frombuffer(content, _type())[good])

    def _take(self, entries: Any) -> None:
        """Add entries to the tables."""
        import numpy

        entries = entries[(entries["image"] < self.count) & (entries["slot"] <= NEVER)]
        for slot in numpy.unique(entries["slot"]).tolist():
            some = entries[entries["slot"] == slot]
            images = some["image"].astype(numpy.int64)
            if slot != PREPARED:
                self._sizes[images, 0], self._sizes[images, 1] = some["rows"], some["columns"]
                self._kinds[images] = _kind(slot)
            if slot == NEVER:
                continue
            table = self._table(slot)
            table["checked"][images] = False
            for name in ("offset", "pixels", "height", "width"):  # a width makes it visible
                table[name][images] = some[name]

    def _put(self, image: int, offset: int, *values: int) -> None:
        """Add an entry of this process to the tables."""
        height, width, rows, columns, pixels, slot = values
        if slot != PREPARED:
            self._sizes[image] = rows, columns
            self._kinds[image] = _kind(slot)
        if slot != NEVER:
            self._table(slot)[image] = offset, height, width, pixels, True

    def _table(self, slot: int) -> Any:
        import numpy

        if slot not in self._slots:
            self._slots[slot] = numpy.zeros(self.count, [
                ("offset", "u8"), ("height", "u4"), ("width", "u4"), ("pixels", "u4"),
                ("checked", "?")])
        return self._slots[slot]

    def _found(self, image: int, slot: int) -> Optional[Tuple[int, int, int, int, bool]]:
        """Return the row of an image's slot in the tables; None if nothing is stored."""
        table = self._slots.get(slot)
        # one conversion to a tuple: each access to a field of numpy takes as long
        found = None if table is None else table[image].item()
        return found if found is not None and found[2] else None

    def _append(self, image: int, slot: int, content: Any, sizes: Tuple[int, ...]) -> None:
        length = content.nbytes
        with self._lock:
            if self._process != os.getpid():
                self._after_fork()
            if self.full:
                return
            if self._end + length > self.limit:
                self._stop("it has reached its limit")
                return
            try:
                # the system appends a single write as one, whatever other processes write
                if length and os.write(self._pixels, content) < length:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                end = os.lseek(self._pixels, 0, os.SEEK_CUR) if length else self._end
                self._end = max(self._end, end)
                values = (image, end - length, *sizes, zlib.crc32(content), slot)
                check = _MAGIC
                for word in struct.unpack("<10I", _ENTRY.pack(*values, 0)[:-4]):
                    check ^= word
                os.write(self._entries, _ENTRY.pack(*values, check))
                # no entries of other processes in between, so nothing must be read
                if os.lseek(self._entries, 0, os.SEEK_CUR) == self._read + _ENTRY.size:
                    self._read += _ENTRY.size
                    self._put(*values)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                self._stop(why if error.errno in _FULL else f"it cannot be written ({why})")

    def _stop(self, why: str) -> None:
        self.full = why
        log.warning("the cache of images is not filled any further, after %.1f MB: %s; other "
                    "images are decoded each time", self._end / 1e6, why)

    def _after_fork(self) -> None:
        """Open the files again: a file that processes share has one position."""
        lock = self._lock
        for number, place in zip((self._pixels, self._entries), self.places):
            file = os.open(place, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            os.dup2(file, number, inheritable=False)
            os.close(file)
        self._process, self._lock = os.getpid(), lock


def _kind(slot: int) -> int:
    """Return how the image of a slot is stored: reduced, unreduced or never; 0 if unknown."""
    return (slot if slot in (ONLY, NEVER) else FACTORS[1]) + 1


def _type() -> Any:
    import numpy

    return numpy.dtype([(name, "<u8" if name in ("image", "offset") else "<u4")
                        for name in _FIELDS])


def _shared_lock(file: int) -> None:
    """Keep other processes from removing a file, where the file system has locks."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)


def in_memory(count: int, limit: int, key: bytes) -> PixelStore:
    """Return a store in memory, which ends with its processes; others can open its `places`.

    Raises:
        OSError: this system has no such files.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "this system has no files in memory")
    begun = [os.memfd_create(f"ipucnn-{name}") for name in ("pixels", "entries")]
    try:
        pixels, entries = (f"/proc/{os.getpid()}/fd/{file}" for file in begun)
        store = PixelStore(pixels, entries, count, limit, key)
    finally:
        for file in begun:
            os.close(file)
    store.places = (f"/proc/{os.getpid()}/fd/{store._pixels}",
                    f"/proc/{os.getpid()}/fd/{store._entries}")
    return store


def in_folder(folder: Path, count: int, limit: int, key: bytes) -> PixelStore:
    """Return the store in a folder, which is made if it does not exist.

    Files of another key, or that are damaged at their beginning, are replaced.

    Raises:
        OSError: a file cannot be opened.
    """
    places = str(folder / "pixels"), str(folder / "entries")
    with suppress(OSError):
        if os.path.getsize(places[1]) % _ENTRY.size:  # torn by a full disk
            remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(3):
        try:
            store = PixelStore(*places, count, limit, key)
        except ValueError:
            remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
            continue
        try:
            same = all(os.path.samestat(os.stat(place), os.fstat(file)) for place, file in
                       zip(places, (store._pixels, store._entries)))
        except OSError:
            same = False
        if same:
            os.utime(places[1])
            return store
        store.close()  # another process has just removed it
    raise OSError(errno.EBUSY, "other processes keep replacing it")


def remove(folder: Path) -> bool:
    """Remove the store in a folder; return False where another process uses it."""
    try:
        file = os.open(str(folder / "entries"), os.O_RDWR)
    except OSError:
        file = -1
    try:
        if file >= 0:
            with suppress(ImportError):
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                except OSError:  # no locks here
                    return False
        for name in ("entries", "pixels"):
            with suppress(FileNotFoundError):
                (folder / name).unlink()
        with suppress(OSError):
            folder.rmdir()
        return True
    finally:
        if file >= 0:
            os.close(file)
