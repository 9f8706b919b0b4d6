"""Options of data behind a URL, which is read from copies, for the datasets that have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.data.remote.stores import is_store

if TYPE_CHECKING:
    from ipucnn.data.remote.store_images import StoreImages


@dataclass(frozen=True)
class CacheOptions:
    """Where copies are kept, and how many."""

    data_cache_dir: Optional[str] = option(
        None, "Folder for local copies of data from a URL.",
        metavar="DIR", machine=True)
    data_cache_size: Optional[int] = option(
        None, "Maximum size of the local copies ('20G').", size=True, minimum=1, metavar="SIZE",
        machine=True)

    def refuse_local(self) -> None:
        """Raise `UsageError` for options of copies where the data is in a folder."""
        if self.data_cache_dir or self.data_cache_size:
            flag = "--data-cache-dir" if self.data_cache_dir else "--data-cache-size"
            raise UsageError(f"'{flag}' is for data behind a URL, and none is named",
                             "leave it out, or name a URL with '--data-dir'")


def on_store(place: Optional[str], options: CacheOptions) -> Optional[StoreImages]:
    """Return the files of a folder on a store; None for a folder of this machine.

    Raises:
        UsageError: copies are wanted of a folder of this machine.
        IpucnnError: the folder on the store cannot be listed.
    """
    if place is None or not is_store(place):
        options.refuse_local()
        return None
    from ipucnn.data.remote.store_images import StoreImages

    return StoreImages(place, options.data_cache_dir, options.data_cache_size)
