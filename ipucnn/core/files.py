"""Creates folders, reads files within limits, and writes files atomically."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Iterator, Tuple, Union

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.staging import partial_name, staged

CACHE_VARIABLE = "IPUCNN_CACHE"
"""The environment variable with the folder of the user's cache."""


def expanded_path(path: Union[str, Path]) -> Path:
    """Return a path with `~` at its beginning expanded; `~name` stays if there is no such user.

    `Path.expanduser` raises `RuntimeError` for such a user.
    """
    return Path(os.path.expanduser(str(path)))


def native_path(path: str) -> str:
    """Return a path that a text file or a program names, as Python represents names of files here.

    Where the encoding of file names is not UTF-8, as in the locale C, Python represents other bytes
    of a name by surrogates.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            with suppress(UnicodeEncodeError):
                return os.fsdecode(path.encode("utf-8", "surrogateescape"))
    return path


def name_bytes(path: str) -> bytes:
    """Return the bytes of a file's name, which are the same in every locale."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:  # a name on a store, in a locale that cannot encode it
        return path.encode("utf-8", "surrogatepass")


def name_text(path: str) -> str:
    r"""Return a file's name as text: its bytes that are not UTF-8 are shown as `\xff`."""
    return name_bytes(path).decode("utf-8", "backslashreplace")


def cache_dir() -> Path:
    """Return the folder of files that are kept for later runs: $IPUCNN_CACHE, or the user's."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return expanded_path(chosen)
    import platformdirs

    try:
        folder = os.path.expanduser(platformdirs.user_cache_dir("ipucnn"))
    except RuntimeError:  # this user has no home folder; with older versions, `~` stays
        folder = "~"
    # containers set HOME to the root for such users
    return Path("/.cache/ipucnn" if folder.startswith("~") else folder)


def require_local(path: str, option: str) -> None:
    """Raise `UsageError` for a URL in the place of a folder, which would be made as `s3:/...`."""
    if "://" in path:
        raise UsageError(f"'{option}' is a folder of this machine, and a URL is given",
                         f"name a path with '{option}'")


def make_folder(path: str, option: str) -> str:
    """Create the folder named by an option if it is missing, and return its full path.

    Raises:
        UsageError: it cannot be created.
    """
    require_local(path, option)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path!r}: {error.strerror}",
                         f"choose another one with '{option}'") from error
    return os.path.abspath(path)


def read_limited(path: Union[str, Path], limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Args:
        path: of the file.
        limit: in bytes; a larger file is not read.

    Raises:
        OSError: it cannot be read, is larger, or is a folder, pipe or device (which could block or
            never end); `strerror` states the reason.
    """
    require_file(path)
    # opening a pipe that has just taken its place would block until something writes to it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(str(path), flags)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes, the limit for such a file")
    return content


def private_folder(path: Union[str, Path]) -> None:
    """Create a folder that only this user may enter, or make it so if it is the user's.

    Raises:
        OSError: it cannot be made, is a link, or belongs to another user.
    """
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(str(path), 0o700)
    status = os.lstat(str(path))
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.ENOTDIR, f"'{path}' is not a folder")
    if not is_own(status):
        raise OSError(errno.EPERM, f"'{path}' belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.chmod(str(path), 0o700)


def new_file(path: Union[str, Path]) -> BinaryIO:
    """Open a new file for reading and writing; whatever has its name is removed, not followed."""
    with suppress(FileNotFoundError):
        os.unlink(str(path))
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(str(path), flags, 0o600), "w+b")


def trusted_folder(path: str, option: str) -> str:
    """Create the folder named by an option, into which only this user may have put files.

    Its files may be code that is run. A new folder is private; an existing one must belong to the
    user, as must all that is in it, and no other user may have write access.

    Raises:
        UsageError: it cannot be made, or another user could have put something there.
    """
    if not os.path.lexists(path):
        with suppress(OSError):  # `make_folder` reports it
            private_folder(os.path.abspath(path))
    folder = make_folder(path, option)
    for place, status in _with_contents(folder):
        owner = "" if is_own(status) else "belongs to another user"
        writable = status.st_mode & (0o022 if place == folder else 0o002)
        if owner or (writable and not stat.S_ISLNK(status.st_mode)):
            raise UsageError(
                f"'{option} {path}' is refused: {place!r} "
                f"{owner or 'can be written by other users'}, and files there may be code that is "
                "run", "choose another folder, or remove write access for others: "
                "'chmod -R go-w FOLDER'")
    return folder


def _with_contents(folder: str) -> Iterator[Tuple[str, os.stat_result]]:
    yield folder, os.stat(folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(FileNotFoundError):  # another process has just removed it
                yield os.path.join(place, name), os.lstat(os.path.join(place, name))


def is_own(status: os.stat_result) -> bool:
    """Return whether a file belongs to this user, or to root, who may do anything anyway."""
    return not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)


def write_text(path: str, text: str) -> None:
    """Write a text file, atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        DataError: it cannot be written (no such folder allowed, a full disk).
    """
    require_replaceable(path)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with staged(Path(path)) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}",
                        "free space or choose another place") from error


def kind_of(path: Union[str, Path]) -> str:
    """Return what a path names, if not a file: `a folder`, `a FIFO`, `a device` or `a socket`.

    The result is empty for a file, and for a path that does not exist or cannot be examined.
    """
    try:
        mode = os.stat(str(path)).st_mode
    except (OSError, ValueError):
        return ""
    return next((kind for test, kind in _KINDS if test(mode)), "")


def require_writable(path: str) -> None:
    """Raise an error for a file that cannot be written; nothing is created.

    A job checks this before it computes what it will write there.

    Raises:
        DataError: it names anything but a file, or its folder cannot be written or made.
        UsageError: a name in it is too long.
    """
    require_replaceable(path)
    place = Path(path).absolute()
    parent = place.parent
    while not _exists(parent):
        parent = parent.parent
    # the system does not look at names within a folder that is missing
    for name in (*place.relative_to(parent).parts, partial_name(place.name)):
        _exists(parent / name)
    if not parent.is_dir():
        raise DataError(f"cannot write {path!r}: '{parent}' is not a folder", "name another place")
    if not os.access(str(parent), os.W_OK | os.X_OK):
        raise DataError(f"cannot write {path!r}: no permission to write in '{parent}'",
                        "name another place")


def name_too_long(path: str) -> UsageError:
    """Return the error for a name that the file system does not accept."""
    return UsageError(f"the name {path!r} is too long for a file", "name another file or folder")


def _exists(path: Path) -> bool:
    """Return whether a path names anything, be it a broken link.

    Raises:
        UsageError: its name is too long.
    """
    try:
        os.lstat(str(path))
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise name_too_long(str(path)) from error
        return False
    except ValueError:  # a NUL in the name
        return False
    return True


_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))


def require_file(path: Union[str, Path]) -> None:
    """Raise `OSError` for a path that cannot be read without blocking, such as a FIFO or a device.

    `strerror` states the type of the path.
    """
    kind = kind_of(path)
    if kind and kind != "a folder":  # opening a folder fails by itself
        raise OSError(errno.EINVAL, f"it is {kind}", str(path))


def require_replaceable(path: Union[str, Path]) -> None:
    """Raise `DataError` for a path to write if it names anything but a file.

    A file is replaced by renaming, which would replace a device as well, and `/dev/stdout`, which
    is a link to any file that standard output is redirected to.
    """
    folder = os.path.dirname(os.path.abspath(str(path)))
    kind = kind_of(path) or ("a device" if folder == "/dev" else "")
    if kind:
        raise DataError(f"cannot write '{path}': it is {kind}", "name a file")
    if "://" in str(path):
        raise DataError(f"cannot write '{path}': it is a URL", "name a file of this machine")
    if str(path) == "-":
        raise DataError("cannot write '-': only '--json' writes to standard output",
                        "name a file; './-' is a file of this name")
