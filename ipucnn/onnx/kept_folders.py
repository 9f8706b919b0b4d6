"""Cached folders of files of engines; the least recently used ones are removed."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ipucnn.core.files import private_folder
from ipucnn.core.staging import scratch
from ipucnn.data.remote.download import cache_dir


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

    @property
    def path(self) -> Path:
        """The folder."""
        return cache_dir() / self.kind / self.name

    def there(self) -> bool:
        """Return whether it is complete, and record this use."""
        file = self.path / self.first
        if not file.is_file():
            return False
        with suppress(OSError):  # another user's cache may be read
            file.touch()
        return True

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """Yield a temporary folder, which is renamed to this one at the end of the block.

        Raises:
            OSError: it cannot be written.
        """
        parent = self.path.parent
        private_folder(parent)
        with scratch(parent, self.name) as partial:
            yield partial
            self._remove(self.path)
            partial.rename(self.path)
        self._make_room()

    def _make_room(self) -> None:
        """Remove the least recently used folders, but not the newest."""
        total = 0
        folders = sorted(self.path.parent.glob(f"*/{self.first}"),
                         key=lambda file: -file.stat().st_mtime)
        for place, file in enumerate(folders):
            total += sum(other.stat().st_size for other in file.parent.iterdir())
            if place and total > self.limit:
                self._remove(file.parent)

    def _remove(self, folder: Path) -> None:
        """Remove a folder; its first file first, so that a killed process leaves none."""
        with suppress(FileNotFoundError):
            (folder / self.first).unlink()
        with suppress(FileNotFoundError):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
