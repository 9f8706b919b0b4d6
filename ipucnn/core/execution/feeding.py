"""What sessions have in common: something decodes and batches the images that they are fed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Optional

if TYPE_CHECKING:
    from ipucnn.data import ImageDataset
    from ipucnn.data.loader import Loader
    from ipucnn.data.workers import Memory


class Fed:
    """A session, as seen by what feeds it images."""

    _memory: Optional[Memory] = None

    def loader(self, dataset: ImageDataset, input_size: int, batch_size: int,
               indices: Iterable[int], **how: Any) -> Loader:
        """Return what decodes and batches images for this session, until it is closed.

        Threads do unless a backend has its own ways; the batches are the same in all of them.

        Args:
            dataset: the first of the arguments of a `Loader`, as the other ones.
            input_size: height and width of the images.
            batch_size: images per batch.
            indices: which images, in which order.
            **how: a `Loader`'s further arguments.
        """
        from ipucnn.data.loader import HostLoader
        from ipucnn.data.workers import Memory

        self._memory = self._memory or Memory()
        return HostLoader(dataset, input_size, batch_size, indices, memory=self._memory, **how)
