"""Classifies images on demand with one model; the session stays open between calls."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

import numpy

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.accuracy import best_classes
from ipucnn.core.execution.session_checks import compiled, logits_of
from ipucnn.core.showing import Blocks, Shown, ShownList, Table
from ipucnn.data import ImageDataset
from ipucnn.data.given_images import GivenImages, fitted
from ipucnn.data.workers import USERS

if TYPE_CHECKING:
    from ipucnn.core.execution.backend import InferenceSession
    from ipucnn.core.registry.discovery import PluginSettings
    from ipucnn.core.registry.registry import Registry
    from ipucnn.inference.options import RunOptions
    from ipucnn.inference.prepared_run import Job


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
    """The most probable classes of an image, the first one first.

    It prints as a short table, and iterates over pairs of a name and its probability.

    Attributes:
        path: path of the image, or its index.
        names: names of the classes.
        probabilities: of these classes, 0 to 1.
        classes: their numbers, the indices of the model's outputs.
    """

    path: str
    names: Tuple[str, ...]
    probabilities: Tuple[float, ...]
    classes: Tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.names[0]

    @property
    def probability(self) -> float:
        """Probability of the most probable class, 0 to 1."""
        return self.probabilities[0]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Tuple[str, float]]:
        return iter(zip(self.names, self.probabilities))

    def as_dict(self) -> Dict[str, float]:
        """Return the probabilities by name."""
        return dict(self)

    def blocks(self) -> Blocks:
        """Return the classes; see `Shown`."""
        return [Table(("class", "probability"), [
            (name, _per_cent(probability)) for name, probability in self], self.path)]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per class."""
        return [{"class": number, "name": name, "probability": probability}
                for number, name, probability in zip(self.classes, self.names,
                                                     self.probabilities)]


class Predictions(ShownList[Prediction]):
    """The predictions for several images, in their order."""

    def blocks(self) -> Blocks:
        """Return the most probable class of the first images; see `Shown`."""
        title = f"the first {_MOST} of {len(self):,} images" if len(self) > _MOST else ""
        return [Table(("image", "class", "probability"), [
            (one.path, one.name, _per_cent(one.probability)) for one in self[:_MOST]], title)]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per image, with the columns of `--predictions`."""
        rows: List[Dict[str, Any]] = []
        for one in self:
            row: Dict[str, Any] = {"path": one.path}
            for rank, found in enumerate(one.records(), start=1):
                row.update({f"{name}_{rank}": value for name, value in found.items()})
            rows.append(row)
        return rows


_MOST = 20
"""Maximum number of predictions that are shown."""


def _per_cent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


class Answering:
    """A model that classifies images on demand, with the results of `ipucnn run`.

    The device is prepared by the first call. Thread-safe; calls are executed one after the other.

    Args:
        options: of the run.
        registry: where names are looked up.

    Attributes:
        job: the prepared run, without images.

    Raises:
        IpucnnError: anything the user can act on.
    """

    def __init__(self, options: RunOptions, registry: Registry) -> None:
        from ipucnn.inference.prepared_run import prepare

        # stored measurements are for continuous runs
        self.job: Job = prepare(options.with_values(tune=False), registry, images=_NOTHING)
        self._given = options
        # until a session changes its network; engines read ONNX files again
        self._prepared = None if options.network.onnx else self.job
        self._session: Optional[InferenceSession] = None
        self._process = os.getpid()
        self._turn = threading.Lock()

    def __call__(self, dataset: ImageDataset, top_k: int) -> Predictions:
        """Classify the images of a dataset.

        Args:
            dataset: the images.
            top_k: classes per image, at most those of the model.

        Raises:
            DataError: an image cannot be read.
            UsageError: an image calls this method.
            IpucnnError: an output of the model is not a finite number. The predictions for the
                images before it are in the attribute `partial` of either error.
        """
        from ipucnn.data.session_loader import feed

        users = USERS.get()
        if self in users:  # the session waits for the images, and would wait forever
            raise UsageError("an image calls 'predict' of the model that classifies it",
                             "call it before, or load the model a second time for the images")
        if self._forked:
            raise IpucnnError(
                "this process was forked from one in which the model is in use",
                "load the model in each process, or start processes with the method 'spawn' or "
                "'forkserver' of multiprocessing")
        found = Predictions()
        with self._turn:
            session = self._open()
            options = self.job.options.dataset
            dataset = fitted(dataset, self.job.built.input_size)
            token = USERS.set((*users, self))
            try:
                with feed(session, dataset, self.job.executed, session.samples_per_call,
                          range(len(dataset)), workers=options.dataloader_worker,
                          skip_bad=options.skip_bad_samples, finish=True) as loader:
                    for batch in loader:
                        logits = logits_of(session.start(batch.images), len(batch),
                                           self.job.built.card.num_outputs, self.job.chosen.plugin)
                        found += self._named(dataset, batch.indices, logits, top_k)
            except IpucnnError as error:
                error.partial = found
                raise
            finally:
                USERS.reset(token)
        return found

    def recipe(self) -> Tuple[Dict[str, Any], PluginSettings]:
        """Return the options as plain types, and the plugins that they may load.

        Another process makes the same model of them.
        """
        return self._given.as_dict(), self.job.registry.settings

    def close(self) -> None:
        """Free the device; the next call acquires it again."""
        if self._forked:
            return  # it is the device of the other process
        with self._turn:
            if self._session is not None:
                self._session.close()
                self._session = None

    @property
    def _forked(self) -> bool:
        """Whether the session belongs to the process from which this one was forked."""
        return self._session is not None and self._process != os.getpid()

    def _open(self) -> InferenceSession:
        if self._session is None:
            from ipucnn.inference.job import attempted

            prepared, self._prepared = self._prepared, None
            self.job, self._session = attempted(
                self.job.options, self.job.registry, _NOTHING, _opened, prepared=prepared)
            self._process = os.getpid()
        return self._session

    def _named(self, dataset: ImageDataset, indices: List[int], outputs: Any,
               top_k: int) -> Iterator[Prediction]:
        card = self.job.built.card
        probabilities = card.probabilities(outputs)
        best = best_classes(probabilities, top_k)
        names = card.names
        for index, finite, values, classes in zip(
                indices, numpy.isfinite(probabilities).all(1).tolist(),
                numpy.take_along_axis(probabilities, best, 1).tolist(), best.tolist()):
            if not finite:
                raise IpucnnError(
                    f"the model's outputs for {dataset.name(index)!r} are not finite",
                    "the weights are damaged or diverged in training, or the precision is too "
                    "low: try precision='full'")
            yield Prediction(dataset.name(index), tuple(names[number] for number in classes),
                             tuple(values), tuple(classes))


def _opened(job: Job) -> Tuple[Job, InferenceSession]:
    from ipucnn.inference.prepared_run import session_of

    with ExitStack() as stack:
        session = stack.enter_context(session_of(job, []))
        session.any_thread = True
        compiled(session, job.chosen.plugin)
        stack.pop_all()
    return job, session


_NOTHING = GivenImages([])
"""Placeholder images for the preparation of a model."""
