"""Cached folders of files of engines; the least recently used ones are removed."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from ipucnn.core.bounded_folder import BoundedFolder, use
from ipucnn.core.files import cache_dir, private_folder
from ipucnn.core.staging import scratch, sync


@dataclass(frozen=True)
class KeptFolder:
    """A cached folder, which may not exist yet.

    Attributes:
        kind: the folder in the cache with all folders of a kind.
        name: a digest of everything that the content depends on.
        first: the file without which the others count as missing.
        limit: maximum total size of a kind in bytes.
    """

    kind: str
    name: str
    first: str
    limit: int = 4 << 30

    @classmethod
    def of(cls, kind: str, conditions: Any, first: str) -> KeptFolder:
        """Return the folder for content that depends on these values, by their `repr`."""
        return cls(kind, hashlib.sha256(repr(conditions).encode()).hexdigest()[:32], first)

    @property
    def path(self) -> Path:
        """The folder."""
        return cache_dir() / self.kind / self.name

    def there(self) -> bool:
        """Return whether it is complete; if so, it is in use by this process from now on."""
        return use(self.path / self.first)

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """Yield a temporary folder, which is renamed to this one at the end of the block.

        Where another process uses this one, it stays as it is.

        Raises:
            OSError: it cannot be written.
        """
        parent = self.path.parent
        kept = BoundedFolder(parent, (f"*/{self.first}",), folders=True, most_bytes=self.limit)
        private_folder(parent)
        with scratch(parent, self.name) as partial:
            yield partial
            for file in partial.iterdir():  # after a power failure, a file may be empty otherwise
                sync(file)
            with kept.alone():
                if kept.remove(self.path / self.first):
                    partial.rename(self.path)
            sync(parent)
        kept.make_room()
