"""The interface of sessions that provide their own image loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Optional

from ipucnn.core.preprocessing import Preprocessing


@dataclass(frozen=True)
class FeedRequest:
    """A request for the images of a session.

    Attributes:
        dataset: the images, an `ipucnn.plugin.ImageDataset`.
        preprocessing: of the network.
        batch_size: images per batch.
        indices: which images, in which order; may be a generator.
        how: further arguments of a loader (`workers`, `skip_bad`, `transform`, `pixels` ...).
    """

    dataset: Any
    preprocessing: Preprocessing
    batch_size: int
    indices: Iterable[int]
    how: Mapping[str, Any] = field(default_factory=dict)


class Fed:
    """Base of sessions, which consume images from a loader.

    Attributes:
        takes_arrays: whether images and logits can be numpy arrays, so that a run does not import
            torch. For tensors, the session returns a tensor.
    """

    takes_arrays: bool = False

    def feed(self, request: FeedRequest) -> Optional[Any]:  # noqa: ARG002
        """Return the session's own loader, an `ipucnn.data.loader.Loader`, or None.

        None, the default, means that the job decodes the images with threads. The batches do not
        depend on the loader.
        """
        return None
