"""Transfers a file over HTTP, with retries that resume after a broken connection."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass
from typing import IO, Any, Dict, Optional
from urllib.parse import urlsplit, urlunsplit

from ipucnn.core.errors import DataError

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
log = logging.getLogger("ipucnn.transfer")


@dataclass(frozen=True)
class Patience:
    """Timeout and retry policy.

    Attributes:
        timeout: seconds without data before an attempt fails; the whole transfer is not limited.
        attempts: number of attempts, including the first.
        pause: seconds before the second attempt; doubles with each, up to `longest_pause`.
        longest_pause: in seconds; also limits a server's `Retry-After`.
    """

    timeout: float = 30.0
    attempts: int = 6
    pause: float = 1.0
    longest_pause: float = 30.0

    def before(self, attempt: int, wanted: float = 0.0) -> float:
        """Return the seconds to wait before an attempt, counted from 1.

        Args:
            attempt: its number.
            wanted: seconds requested by the server.
        """
        return min(self.longest_pause, max(wanted, self.pause * 2.0 ** (attempt - 2)))

    @property
    def longest_silence(self) -> float:
        """The longest time in seconds without data while attempts continue."""
        return self.attempts * (self.timeout + self.longest_pause)


@dataclass(frozen=True)
class Expected:
    """Known properties of the content.

    Attributes:
        size: in bytes; None for the size that the server announces.
        md5: in hexadecimal digits; empty checks nothing.
        limit: maximum number of bytes that are received, whatever the server announces.
    """

    size: Optional[int] = None
    md5: str = ""
    limit: Optional[int] = None


def transfer(url: str, file: IO[bytes], patience: Patience,
             expected: Expected = Expected()) -> None:
    """Write the content at `url` into `file`, from its start.

    A refused or broken connection, a timeout, 5xx, 408, 429 and wrong content are retried; the
    next attempt resumes where the last one ended if the server supports it and the content has
    not changed.

    Args:
        url: http or https.
        file: open for writing, seekable.
        patience: timeout and retry policy.
        expected: known properties of the content.

    Raises:
        DataError: the content cannot be fetched or does not match `expected`.
        OSError: writing the file failed.
    """
    log.debug("fetching %s", shown(url))
    content = _Content(url, file, expected)
    for attempt in range(1, patience.attempts + 1):
        try:
            content.receive(patience.timeout)
            return
        except _Failed as failure:
            if failure.final or attempt == patience.attempts:
                counted = f" (attempt {attempt} of {patience.attempts})" if attempt > 1 else ""
                raise DataError(f"cannot fetch {shown(url)!r}: {failure}{counted}",
                                failure.hint) from failure.__cause__
            pause = patience.before(attempt + 1, failure.pause)
            log.warning("'%s' is not fetched yet: %s; trying again in %.1f s", shown(url), failure,
                        pause)
        time.sleep(pause)


def shown(url: str) -> str:
    """Return a URL without user, password and query, which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # unbalanced brackets
        return "URL"
    host = parts.netloc.rpartition("@")[2]
    if not host and "://" in url:  # memory:///folder, of which `urlunsplit` drops the slashes
        return f"{parts.scheme}://{parts.path}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class _Failed(Exception):
    """A failed attempt; `final` when a retry would not help."""

    def __init__(self, what: str, hint: str, final: bool = False, pause: float = 0.0) -> None:
        super().__init__(what)
        self.hint = hint
        self.final = final
        self.pause = pause


class _Content:
    """The content received so far."""

    def __init__(self, url: str, file: IO[bytes], expected: Expected) -> None:
        self.url = url
        self.file = file
        self.size, self.md5, self.limit = expected.size, expected.md5, expected.limit
        self._tag = ""
        self._restart()

    def _restart(self) -> None:
        self.file.seek(0)
        self._received = 0
        self._digest = hashlib.md5()

    def receive(self, timeout: float) -> None:
        """Receive the missing content from one response of the server."""
        import requests
        import urllib3

        if not (self._tag or self.md5):  # a changed file could not be detected
            self._restart()
        try:
            with requests.get(self.url, stream=True, timeout=timeout,
                              headers=self._headers()) as answer:
                total = self._accept(answer)
                for data in iter(lambda: answer.raw.read(_CHUNK, decode_content=False), b""):
                    self._store(data)
        except (requests.RequestException, urllib3.exceptions.HTTPError,
                ValueError) as error:  # of an address that the server redirects to
            raise _failure(error, self.url) from error
        self._check(total)
        self.file.truncate(self._received)

    def _headers(self) -> Dict[str, str]:
        headers = {"Accept-Encoding": "identity"}  # bytes as stored; do not compress a tar again
        if self._received:
            headers["Range"] = f"bytes={self._received}-"
            if self._tag:
                headers["If-Range"] = self._tag
        return headers

    def _accept(self, answer: Any) -> Optional[int]:
        """Return the size of the whole content, where the response states it."""
        status, headers = answer.status_code, answer.headers
        total = _number(headers.get("Content-Length", ""))
        if status == 206 and self._received:
            part = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if not part or int(part.group(1)) != self._received:
                self._restart()
                raise _Failed("the server answered with a part that was not requested", _NETWORK)
            total = _number(part.group(2))
        elif status == 200:
            self._restart()
        else:
            if status == 416:  # the file is now shorter than the received content
                self._restart()
            raise _refused(answer)
        tag = headers.get("ETag", "")
        self._tag = "" if tag.startswith("W/") else tag  # weak tags do not imply equal bytes
        if self.size is not None and total is not None and total != self.size:
            raise self._unexpected(f"it has {total} bytes, expected {self.size}")
        self._check_limit(total or 0)
        return self.size if total is None else total

    def _store(self, data: bytes) -> None:
        if self.size is not None and self._received + len(data) > self.size:
            raise self._unexpected(f"it has more than the expected {self.size} bytes")
        self._check_limit(self._received + len(data))
        self.file.write(data)
        self._digest.update(data)
        self._received += len(data)

    def _check_limit(self, size: int) -> None:
        if self.limit is not None and size > self.limit:
            raise _Failed(f"it has more than {self.limit:,} bytes, the limit for such a file",
                          "check the address", final=True)

    def _check(self, total: Optional[int]) -> None:
        if total is not None and self._received < total:
            raise _Failed(f"the connection broke after {self._received} of {total} bytes",
                          _NETWORK)
        found = self._digest.hexdigest()
        if self.md5 and found != self.md5.lower():
            raise self._unexpected(f"its MD5 is {found}, expected {self.md5}")

    def _unexpected(self, what: str) -> _Failed:
        self._restart()
        return _Failed(what, "it was damaged in transit, or replaced on the server")


_NETWORK = "check the network connection, the server and proxy settings"


def _refused(answer: Any) -> _Failed:
    status = answer.status_code
    wanted = answer.headers.get("Retry-After", "")
    again = status >= 500 or status in (408, 416, 429)
    return _Failed(f"the server answered {status} {answer.reason}",
                   "check the address, or try again later", final=not again,
                   pause=float(_number(wanted) or 0))


def _number(text: str) -> Optional[int]:
    """Return the number in a header, or None."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _failure(error: Exception, url: str) -> _Failed:
    import requests
    import urllib3

    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)):
        return _Failed("the server did not respond in time", _NETWORK)
    if isinstance(error, requests.exceptions.SSLError):
        return _Failed("the server's certificate cannot be verified", _NETWORK, final=True)
    if isinstance(error, requests.exceptions.ConnectionError):
        return _Failed("the connection to the server failed", _NETWORK)
    if isinstance(error, urllib3.exceptions.HTTPError):
        return _Failed("the connection broke before the end of the file", _NETWORK)
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return _Failed(text.replace(url, shown(url)), _NETWORK, final=True)
