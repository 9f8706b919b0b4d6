"""Properties of loading, over formats x instances x workers x batches x drop rule x resume point.

Validation counts every sample exactly once; an epoch of training is a permutation; a resumed one
continues where it ended; what is done to a sample depends on the seed, the epoch and the sample.
"""

import threading
from collections import Counter
from dataclasses import replace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.instances import Instances
from ipucnn.core.options.building import build
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import RANDOM_RESIZED_CROP, DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import DatasetRequest
from ipucnn.data.augment import TrainTransform
from ipucnn.data.formats.convert import convert
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.data.host_loader import HostLoader
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch
from ipucnn.plugins.losses.cross_entropy import CrossEntropy
from ipucnn.training.feed import Feed
from ipucnn.training.metrics.validation import Evaluator
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import prepare

FORMATS = ("image_folder", "img", "tensor", "cifar10", "shapes")
"""The last two are read from memory; `img` and `tensor` are both of `webdataset`."""
PER_CLASS, CLASSES, SIZE = 6, 8, 16
TOTAL = PER_CLASS * CLASSES

fixed = settings(derandomize=True, deadline=None, database=None, max_examples=25)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each format."""
    base = tmp_path_factory.mktemp("formats")
    source = str(base / "image_folder")
    write_made("shapes", source, GeneratedFiles(
        per_class=PER_CLASS, size=24, validation_per_class=PER_CLASS))
    found = {"image_folder": source, "shapes": None, "cifar10": str(base / "cifar")}
    for form in ("img", "tensor"):
        found[form] = str(base / form)
        convert(build(ConvertOptions, {"source": source, "target": found[form], "format": form,
                                       "samples_per_shard": 7}), lambda *_: None)
    cifar = base / "cifar"
    cifar.mkdir()
    random = numpy.random.default_rng(0)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        rows = random.integers(0, 256, (TOTAL // 5 + 3 if name != names[-1] else TOTAL, 3073),
                               dtype=numpy.uint8)
        rows[:, 0] %= 10
        (cifar / name).write_bytes(rows.tobytes())
    (cifar / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return found


def dataset_of(folders, form, split):
    used = registry()
    return used.make(used.get_typed(DatasetSpec, _record(form)), DatasetRequest(
        data_dir=folders[form], input_size=SIZE, split=split, length=TOTAL))


def _record(form):
    return "webdataset" if form in ("img", "tensor") else form


# -- validation --------------------------------------------------------------------------------

class Together(Instances):
    """Instances that are threads of this process."""

    def __init__(self, index, count, board, barrier):
        self.index, self.count, self._board, self._barrier = index, count, board, barrier

    def gather(self, value):
        self._board[self.index] = value
        self._barrier.wait(30)
        everything = list(self._board)
        self._barrier.wait(30)
        return everything

    def sum(self, tensor):
        return sum(self.gather(tensor))


def threads(request):
    """Return what feeds a session that has no loader of its own."""
    return HostLoader(request.dataset, request.preprocessing, request.batch_size, request.indices,
                      **request.how)


class Seen(InferenceSession):
    """A session that remembers which images it was fed, and finds the class in the image's sum."""

    def __init__(self, batch_size, seen):
        self.samples_per_call, self._seen, self.facts = batch_size, seen, {}

    def feed(self, request):
        loader = threads(request)
        made = loader._batch
        loader._batch = lambda *parts: self._note(made(*parts))
        return loader

    def _note(self, batch):
        self._seen.extend(batch.indices)
        return batch

    def compile(self):
        return 0.0

    def __call__(self, images):
        sums = images.long().sum((1, 2, 3)) % 10
        return torch.nn.functional.one_hot(sums, 10).float()

    def close(self):
        pass


class SeenBackend(Backend):
    def __init__(self, batch_size, seen):
        self._how = batch_size, seen

    def probe(self):
        raise NotImplementedError

    def inference(self, model, plan, input_size):
        return Seen(*self._how)


def card_of(dataset):
    """Return the card of a model with ten outputs, of which the dataset may have eight."""
    names = [*dataset.class_names, *"ab"][:10]
    return ModelCard(model="m", num_outputs=10, class_names=tuple(names))


def validated(folders, form, count, workers, batch_size):
    """Evaluate with `count` instances side by side; return the validations and what each saw."""
    board, barrier = [None] * count, threading.Barrier(count)
    seen, results, plan = [[] for _ in range(count)], [None] * count, replace(
        _plan(), replicas=count, instances=count)

    def work(index):
        dataset = dataset_of(folders, form, "validation")
        evaluator = Evaluator(
            torch.nn.Linear(1, 1), SeenBackend(batch_size, seen[index]), CrossEntropy(), plan,
            dataset, card_of(dataset), ClassMatch(tuple(range(len(dataset.class_names)))),
            workers=workers,
            instances=Together(index, count, board, barrier))
        results[index] = evaluator({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}, 0)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    barrier.abort()  # one that waits for an instance that failed must not continue
    assert all(results), "an instance did not finish"
    return results, seen


def _plan():
    return replace(build(TrainOptions, {"batch_size": 2}).plan(False),
                   preprocessing=Preprocessing(SIZE))


@pytest.mark.parametrize("form", FORMATS)
def test_validation_counts_each_sample_exactly_once(folders, form):
    expected = dataset_of(folders, form, "validation")
    assert len({expected.name(index) for index in range(len(expected))}) == len(expected)
    every = Counter(range(len(expected)))
    first = []

    @fixed
    @given(count=st.integers(1, 9), workers=st.integers(1, 5), batch_size=st.integers(1, 20))
    def holds(count, workers, batch_size):
        results, seen = validated(folders, form, count, workers, batch_size)
        assert Counter(index for part in seen for index in part) == every
        assert [result.images for result in results] == [len(expected)] * count
        first.append(results[0])
        for result in results:  # neither batches nor instances show in the figures
            assert (result.top1, result.confusion) == (first[0].top1, first[0].confusion)
            assert abs(result.loss - first[0].loss) < 1e-9

    holds()


# -- training ----------------------------------------------------------------------------------

class Recorded(Fed):
    """A training session that records the indices and pixels of its images."""

    def __init__(self):
        self.indices, self.images = [], []

    def feed(self, request):
        loader = threads(request)
        made = loader._batch
        loader._batch = lambda *parts: self._note(made(*parts))
        return loader

    def _note(self, batch):
        self.indices.append(batch.indices)
        self.images.append(batch.images.clone())
        return batch


@pytest.fixture(scope="module")
def trainings(folders):
    made = {}
    for form in FORMATS:
        options = {"data": _record(form), "model": "resnet18", "input_size": SIZE, "batch_size": 1,
                   "no_validation": True, "backend": "torch", "seed": 5}
        if folders[form]:
            options["data_dir"] = folders[form]
        made[form] = prepare(build(TrainOptions, options), registry())
        if form == "shapes":
            made[form] = replace(made[form], dataset=dataset_of(folders, form, "train"))
    return made


def fed(training, count, index, micro_batch, iterations, replicas, workers, consumed=0, epoch=0):
    """Return the batches of indices and pixels that an instance is fed, and where each ends."""
    plan = replace(training.plan, micro_batch=micro_batch, device_iterations=iterations,
                   replicas=replicas * count, instances=count)
    prepared = replace(training, plan=plan, instances=Together(index, count, None, None),
                       options=training.options.with_values(dataloader_worker=workers))
    session = Recorded()
    feed = Feed(prepared, session, epoch, consumed)
    ends = [end for _, end in feed]
    return session.indices[:len(ends)], session.images[:len(ends)], ends, plan


@pytest.mark.parametrize("form", FORMATS)
def test_an_epoch_is_a_permutation_shared_by_all_instances(trainings, form):
    training = trainings[form]
    length = len(training.dataset)

    @fixed
    @given(count=st.integers(1, 4), micro_batch=st.integers(1, 4), iterations=st.integers(1, 2),
           replicas=st.integers(1, 2), workers=st.integers(1, 4), epoch=st.integers(0, 3))
    def holds(count, micro_batch, iterations, replicas, workers, epoch):
        parts = [fed(training, count, index, micro_batch, iterations, replicas, workers,
                     epoch=epoch) for index in range(count)]
        plan = parts[0][3]
        order = training.dataset.order(5, epoch)
        assert sorted(order.tolist()) == list(range(length))
        calls = length // plan.combined_batch  # the stated rule: what fills no call is left out
        for indices, _, ends, _ in parts:
            assert len(indices) == calls
            assert ends == [plan.combined_batch * (call + 1) for call in range(calls)]
        for call in range(calls):
            together = sorted(i for indices, _, _, _ in parts for i in indices[call])
            here = order[call * plan.combined_batch:(call + 1) * plan.combined_batch]
            assert together == sorted(here.tolist())

    holds()


@pytest.mark.parametrize("form", FORMATS)
def test_a_resumed_epoch_continues_with_the_same_pixels(trainings, form):
    training = trainings[form]

    @fixed
    @given(data=st.data(), count=st.integers(1, 3), micro_batch=st.integers(1, 5),
           workers=st.integers(1, 4), others=st.integers(1, 4))
    def holds(data, count, micro_batch, workers, others):
        index = data.draw(st.integers(0, count - 1))
        indices, images, ends, _ = fed(training, count, index, micro_batch, 1, 1, workers, epoch=1)
        done = data.draw(st.integers(0, len(ends)))
        left, pixels, left_ends, _ = fed(training, count, index, micro_batch, 1, 1, others,
                                         consumed=ends[done - 1] if done else 0, epoch=1)
        assert left == indices[done:]
        assert left_ends == ends[done:]
        for one, other in zip(pixels, images[done:]):
            assert torch.equal(one, other)

    holds()


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_done_to_a_sample_is_the_same_for_any_workers_and_instances(trainings, form):
    training = trainings[form]
    (indices,), (images,), _, _ = fed(training, 1, 0, len(training.dataset), 1, 1, 1, epoch=2)
    expected = dict(zip(indices, images))

    @fixed
    @given(count=st.integers(1, 4), workers=st.integers(1, 6), micro_batch=st.integers(1, 5))
    def holds(count, workers, micro_batch):
        for index in range(count):
            batches, pixels, _, _ = fed(training, count, index, micro_batch, 1, 1, workers, epoch=2)
            for part, images in zip(batches, pixels):
                for sample, image in zip(part, images):
                    assert torch.equal(image, expected[sample])

    holds()


def test_no_two_samples_or_epochs_are_changed_alike():
    """One and the same picture, under every sample's number and epoch: no two results agree."""
    class Same:
        ready, flippable, recipe = False, True, RANDOM_RESIZED_CROP

    noise = numpy.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=numpy.uint8)
    made = {TrainTransform(24, seed, Same()).draw(sample, epoch)(noise).tobytes()
            for seed in range(2) for sample in range(150) for epoch in range(10)}
    assert len(made) == 2 * 150 * 10
