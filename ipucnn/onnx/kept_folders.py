"""Folders of files that engines made, kept for later runs: those used last stay."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from ipucnn.core.files import private_folder
from ipucnn.core.staging import scratch, sync
from ipucnn.data.remote.download import cache_dir


@dataclass(frozen=True)
class KeptFolder:
    """One such folder, which may not exist yet.

    Attributes:
        kind: the folder in the cache that holds all of one kind.
        name: a digest of everything that the content depends on.
        first: the file without which the others count as missing.
        limit: how many bytes of one kind are kept.
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
        """Return whether it is complete, and count this as its last use."""
        file = self.path / self.first
        try:
            if not file.is_file():
                return False
        except OSError:  # a folder that may not be entered
            return False
        with suppress(OSError):  # another user's cache may be read
            file.touch()
        return True

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """Yield a new folder, which becomes this one at the end of the block.

        Raises:
            OSError: it cannot be written.
        """
        parent = self.path.parent
        private_folder(parent)
        with scratch(parent, self.name) as partial:
            yield partial
            for file in partial.iterdir():  # after a power failure, a file may be empty otherwise
                sync(file)
            self._remove(self.path)
            partial.rename(self.path)
            sync(parent)
        self._make_room()

    def _make_room(self) -> None:
        """Remove the folders that have not been used for longest, never the newest."""
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
