import dataclasses
import itertools

import numpy
import pytest
import torch
from PIL import Image

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.data import ImageDataset, augment
from ipucnn.data.augment import TrainTransform
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.resize import to_pillow


class Gradients(ImageDataset):
    """Red counts columns, green counts rows: a pixel shows where in the image it comes from."""

    def __init__(self, length=8, height=200, width=250, box=None):
        self.length = length
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        self.pixels = torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)
        self.place = box

    def __len__(self):
        return self.length

    def image(self, index):
        pixels = self.pixels.clone()
        pixels[2] = index
        return pixels

    def name(self, index):
        return f"gradient/{index}"

    def label(self, index):
        return 0

    def box(self, index):
        return self.place


def apply(transform, image, index, epoch):
    """Return the image `(3, height, width)` that `transform` makes of one, in the same form."""
    pixels = transform.draw(index, epoch)(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def crops(dataset, count, size=40, **options):
    """Left, right, top and bottom of the crops of `count` samples in pixels, and who is flipped."""
    transform = TrainTransform(size, 0, dataset, **options)
    found = []
    for index in range(count):
        image = apply(transform, dataset.image(0), index, 0)
        red, green = image[0].float().mean(0), image[1].float().mean(1)
        flipped = bool(red[0] > red[-1])
        found.append((*sorted((float(red[0]), float(red[-1]))), float(green[0]), float(green[-1]),
                      flipped))
    return numpy.array(found)


def transformed(dataset, index=3, size=24, seed=0, epoch=0, **options):
    transform = TrainTransform(size, seed, dataset, **options)
    return apply(transform, dataset.image(index), index, epoch)


class TestStandard:
    @pytest.mark.parametrize(("height", "width"), [
        (200, 250), (1, 1), (3, 900), (900, 3), (33, 33), (8, 8)])
    def test_any_size_becomes_the_input_size(self, height, width):
        for index, size in itertools.product(range(4), (1, 32)):
            image = transformed(Gradients(height=height, width=width), index, size)
            assert image.shape == (3, size, size)
            assert image.dtype == torch.uint8
            assert image[2].unique().tolist() == [index]

    def test_crops_spread_as_published(self):
        """Area 8 to 100 %, aspect 3/4 to 4/3, anywhere in the image, half of them flipped."""
        left, right, top, bottom, flipped = crops(Gradients(), 400).T
        # the outermost of 40 pixels lie half a pixel inside
        width, height = (right - left) * 40 / 39, (bottom - top) * 40 / 39
        area, ratio = width * height / (200 * 250), width / height
        assert 0.07 < area.min() < 0.12
        assert 0.85 < area.max() < 1.02
        assert 0.45 < area.mean() < 0.56
        assert 0.72 < ratio.min() < 0.8
        assert 1.25 < ratio.max() < 1.38
        assert 0.4 < flipped.mean() < 0.6
        assert left.min() < 8
        assert right.max() > 240
        assert top.min() < 6
        assert bottom.max() > 193

    @pytest.mark.parametrize(("height", "width"), [(10, 240), (240, 10)])
    def test_a_long_image_gives_its_middle(self, height, width):
        """No crop of an allowed aspect has 8 % of its area: the longest allowed one is taken."""
        dataset = Gradients(height=height, width=width)
        left, right, top, bottom, _ = crops(dataset, 20).T
        middle = (left + right) / 2 if width > height else (top + bottom) / 2
        assert numpy.abs(middle - 119.5).max() < 1
        assert numpy.ptp(left) < 0.5

    def test_ready_images_are_only_flipped(self):
        dataset = Gradients(height=24, width=24)
        dataset.ready = True
        images = [transformed(dataset, index) for index in range(40)]
        flipped = [bool(image[0, 0, 0] > 0) for image in images]
        assert 8 < sum(flipped) < 32
        for index, image in enumerate(images):
            expected = dataset.image(index)
            assert torch.equal(image, expected.flip(2) if flipped[index] else expected)

    def test_nothing_is_flipped_that_must_not_be(self):
        dataset = Gradients()
        dataset.flippable = False
        assert not crops(dataset, 30)[:, 4].any()

    def test_the_dataset_keeps_its_image(self):
        dataset = Gradients(height=24, width=24)
        dataset.ready = True
        image = dataset.image(1)
        before = image.clone()
        for index in range(20):
            apply(TrainTransform(24, 0, dataset, rand_augment=3, magnitude=20), image, index, 0)
        assert torch.equal(image, before)

    def test_resizing_is_antialiased(self):
        dataset = Gradients(height=512, width=512)
        stripes = torch.zeros(3, 512, 512, dtype=torch.uint8)
        stripes[:, :, ::2] = 255
        image = apply(TrainTransform(16, 0, dataset), stripes, 0, 0).float()
        assert (image - 127.5).abs().max() < 20


class TestPaddedCrop:
    """CIFAR's recipe: a crop from the image with a black margin of an eighth, and a flip."""

    @staticmethod
    def dataset(**details):
        dataset = Gradients(height=32, width=32)
        dataset.recipe, dataset.native_size, dataset.ready = "padded-crop", 32, True
        for name, value in details.items():
            setattr(dataset, name, value)
        dataset.pixels = dataset.pixels + 1  # 0 is the margin
        return dataset

    def test_moves_by_up_to_four_pixels(self):
        dataset = self.dataset(flippable=False)
        moves = set()
        for index, epoch in itertools.product(range(20), range(20)):
            image = transformed(dataset, index, 32, epoch=epoch)
            across, down = (int((image[channel].amax(dim) == 0).nonzero().numel())
                            for channel, dim in ((0, 0), (1, 1)))
            rows, columns = image[1].amax(1), image[0].amax(0)
            top = -int(rows[0]) + 1 if rows[0] else int((rows == 0).sum())
            left = -int(columns[0]) + 1 if columns[0] else int((columns == 0).sum())
            assert abs(top) <= 4
            assert abs(left) <= 4
            assert (down, across) == (abs(top), abs(left))
            moves.add((top, left))
        assert len(moves) > 70  # of 9 x 9

    def test_half_of_them_are_flipped(self):
        dataset = self.dataset()
        red = [transformed(dataset, index, 32)[0].float() for index in range(200)]
        flipped = sum(bool(image[16, 8] > image[16, 24]) for image in red)
        assert 70 < flipped < 130

    def test_at_another_input_size_the_whole_is_resized(self):
        dataset = self.dataset(ready=False)
        image = transformed(dataset, 3, 64)
        assert image.shape == (3, 64, 64)
        small = transformed(self.dataset(), 3, 32)
        assert (image[:, ::2, ::2].float() - small.float()).abs().mean() < 2

    @pytest.mark.parametrize("size", [32, 64])
    def test_validation_leaves_nothing_out(self, size):
        dataset = self.dataset(ready=False)
        preprocessing = registry().get_typed(DatasetSpec, "cifar10").preprocessing.sized(size)
        with HostLoader(dataset, preprocessing, 1, [5], workers=1) as loader:
            (image,) = [batch.images[0] for batch in loader]
        if size == 32:
            assert torch.equal(image, dataset.image(5))
        else:
            assert (image[0, 0, 0], image[0, 0, -1]) == (1, 32)


class TestReduction:
    """Large JPEG files are decoded smaller, where a crop of them keeps the input size."""

    def images(self, tmp_path, size):
        from ipucnn.data.image_files import FileImages

        y, x = numpy.mgrid[0:1100, 0:1500]
        picture = numpy.stack([x / 6, y / 5, 127 + 90 * numpy.sin(x / 80)], -1).astype(numpy.uint8)
        Image.fromarray(picture).save(tmp_path / "large.jpg", quality=95)
        Image.fromarray(picture).save(tmp_path / "large.png")
        paths = [str(tmp_path / "large.jpg"), str(tmp_path / "large.png")]
        return FileImages(paths, [0, 0], ("a",))

    def test_the_same_crop_of_the_same_image(self, tmp_path):
        dataset = self.images(tmp_path, 32)
        for index, epoch in itertools.product((0,), range(12)):
            transform = TrainTransform(32, 0, dataset)
            with HostLoader(dataset, Preprocessing(32), 1, [0], workers=1, transform=transform,
                            epoch=epoch) as loader:
                (reduced,) = [batch.images[0] for batch in loader]
            whole = apply(transform, dataset.image(1), index, epoch)
            assert (reduced.float() - whole.float()).abs().max() < 14
            assert (reduced.float() - whole.float()).abs().mean() < 2

    def test_crops_keep_the_input_size(self, tmp_path):
        transform = TrainTransform(64, 0, self.images(tmp_path, 64))
        found = {transform.draw(0, epoch).wanted(1100, 1500).by for epoch in range(60)}
        assert found == {4, 8}
        assert transform.draw(0, 0).wanted(127, 5000).by == 1
        small = TrainTransform(224, 0, self.images(tmp_path, 64))
        assert small.draw(0, 0).wanted(375, 500).by == 1


class TestRows:
    """JPEG files are decoded down to the last row of the crop."""

    @pytest.fixture
    def dataset(self, tmp_path):
        from ipucnn.data.image_files import FileImages

        y, x = numpy.mgrid[0:300, 0:400]
        picture = numpy.stack([x / 2, y / 2, 127 + 90 * numpy.sin(x / 8 + y / 9)], -1)
        Image.fromarray(picture.astype(numpy.uint8)).save(tmp_path / "image.jpg", quality=95)
        return FileImages([str(tmp_path / "image.jpg")], [0], ("a",))

    @pytest.mark.parametrize("options", [{}, {"rand_augment": 2}])
    @pytest.mark.parametrize("size", [16, 32, 224])
    def test_images_are_those_of_the_whole_file(self, dataset, size, options, monkeypatch):
        def images():
            for epoch in range(25):
                transform = TrainTransform(size, 0, dataset, **options)
                with HostLoader(dataset, Preprocessing(size), 1, [0], workers=1,
                                transform=transform,
                                epoch=epoch) as loader:
                    yield next(iter(loader)).images[0]

        ours = list(images())
        rows, wanted = [], augment.Draw.wanted

        def whole(drawn, height, width):
            part = wanted(drawn, height, width)
            rows.append(part.rows)
            return dataclasses.replace(part, rows=height)

        monkeypatch.setattr(augment.Draw, "wanted", whole)
        for found, expected in zip(ours, images()):
            assert torch.equal(found, expected)
        assert min(rows) < 200
        assert max(rows) <= 300

    def test_the_part_of_a_draw_stays_the_same(self, dataset):
        transform = TrainTransform(32, 0, dataset, rand_augment=1)
        image = numpy.arange(48 * 48 * 3, dtype=numpy.uint8).reshape(48, 48, 3)
        once, twice = (transform.draw(0, 3) for _ in range(2))
        assert once.wanted(48, 48) == twice.wanted(48, 48) == twice.wanted(48, 48)
        assert numpy.array_equal(once(image, (48, 48)), twice(image, (48, 48)))

    def test_images_that_are_not_cropped_are_needed_whole(self, dataset):
        dataset.ready = True
        assert TrainTransform(32, 0, dataset).draw(0, 1).wanted(32, 32).rows == 32


class TestRandomness:
    def test_depends_on_seed_epoch_and_sample(self):
        dataset = Gradients()
        base = transformed(dataset, 3)
        assert torch.equal(base, transformed(dataset, 3))
        for other in ({"seed": 1}, {"epoch": 1}, {"seed": 1, "epoch": 1}):
            assert not torch.equal(base, transformed(dataset, 3, **other))
        assert not torch.equal(base[:2], transformed(dataset, 4)[:2])

    @pytest.mark.parametrize("options", [{}, {"rand_augment": 2}])
    def test_the_number_of_workers_does_not_matter(self, options):
        def images(workers, indices):
            dataset = Gradients(30)
            transform = TrainTransform(32, 5, dataset, **options)
            with HostLoader(dataset, Preprocessing(32), 7, indices, workers=workers,
                            transform=transform, epoch=2) as loader:
                return torch.cat([batch.images for batch in loader])

        expected = images(1, range(30))
        for workers in (2, 5):
            assert torch.equal(images(workers, range(30)), expected)
        assert torch.equal(images(3, range(29, -1, -1)), expected.flip(0))  # nor does the order
        assert len(expected[:, :2].flatten(1).unique(dim=0)) == 30

    def test_global_generators_are_left_alone(self):
        torch_state, numpy_state = torch.get_rng_state(), numpy.random.get_state()[1].copy()
        transformed(Gradients(), rand_augment=4)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert (numpy.random.get_state()[1] == numpy_state).all()


class TestBoxes:
    # (left, top, right, bottom): near the right side, and near the bottom
    BOXES = [(0.75, 0.05, 0.95, 0.5), (0.05, 0.7, 0.4, 0.95)]

    @staticmethod
    def shares(found, box):
        """Share of each crop that the box covers."""
        left, right, top, bottom, _ = found.T
        across = numpy.minimum(right, box[2] * 250) - numpy.maximum(left, box[0] * 250)
        down = numpy.minimum(bottom, box[3] * 200) - numpy.maximum(top, box[1] * 200)
        return across.clip(0) * down.clip(0) / ((right - left) * (bottom - top))

    @pytest.mark.parametrize("box", BOXES)
    def test_crops_show_the_object(self, box):
        with_boxes = self.shares(crops(Gradients(box=box), 200, use_boxes=True), box)
        without = self.shares(crops(Gradients(box=box), 200), box)
        # a tenth of the crop, unless ten attempts were in vain
        assert (without > 0.1).mean() < 0.4
        assert (with_boxes > 0.1).mean() > 0.8

    def test_a_box_everywhere_changes_nothing(self):
        plain, boxed = (crops(Gradients(box=(0, 0, 1, 1)), 20, use_boxes=use)
                        for use in (False, True))
        assert (plain == boxed).all()

    def test_a_box_that_cannot_be_met_ends(self):
        found = crops(Gradients(box=(0.5, 0.5, 0.5, 0.5)), 10, use_boxes=True)
        assert len(numpy.unique(found[:, 0])) > 5  # still random crops, not all the middle

    @pytest.mark.parametrize(("place", "box", "share"), [
        ((0, 0, 10, 10), (0, 0, 0.5, 0.5), 1.0),      # image 40 high, 20 wide: box 20 x 10
        ((0, 0, 40, 20), (0, 0, 0.5, 0.5), 0.25),
        ((0, 10, 10, 10), (0, 0, 0.5, 1), 0.0),       # beside it
        ((30, 10, 10, 10), (0, 0, 0.25, 0.25), 0.0),  # beside and below: two negative extents
        ((0, 0, 20, 20), (0.5, 0.25, 1, 1), 0.25),    # exchanged axes would give another share
        ((0, 0, 4, 4), (0.5, 0.5, 0.5, 0.5), 0.0)])
    def test_overlap(self, place, box, share):
        assert augment.overlap(place, box, 40, 20) == pytest.approx(share)


class TestRandAugment:
    @pytest.mark.parametrize("magnitude", [0, 1, 9, 30])
    def test_keeps_shape_and_type(self, magnitude):
        for index in range(60):
            image = transformed(Gradients(), index, 17, rand_augment=3, magnitude=magnitude)
            assert image.shape == (3, 17, 17)
            assert image.dtype == torch.uint8

    def test_strength(self):
        """The stronger, the further from the image; 0 hardly changes most of them."""
        dataset = Gradients(height=48, width=48)
        dataset.ready, dataset.flippable = True, False
        means = []
        for magnitude in (0, 10, 30):
            means.append(numpy.mean([
                (transformed(dataset, i, 48, rand_augment=1, magnitude=magnitude).float()
                 - dataset.image(i).float()).abs().mean() for i in range(150)]))
        assert means[0] < means[1] < means[2]

    def test_more_operations_change_more(self):
        dataset = Gradients(height=48, width=48)
        dataset.ready, dataset.flippable = True, False
        changed = [sum(not torch.equal(transformed(dataset, i, 48, rand_augment=count),
                                       dataset.image(i)) for i in range(60))
                   for count in (0, 1, 4)]
        assert changed[0] == 0
        assert 30 < changed[1] < changed[2]

    @pytest.mark.parametrize("operation", range(14))
    def test_every_operation_of_the_paper(self, operation):
        noise = numpy.random.default_rng(1).integers(30, 160, (64, 64, 3), dtype=numpy.uint8)
        noise[:20] += 60
        picture = to_pillow(noise)
        change = augment._OPERATIONS[operation]
        results = [numpy.array(change(picture, strength, sign))
                   for strength in (0.0, 0.5, 1.0) for sign in (-1, 1)]
        assert all(result.shape == (64, 64, 3) for result in results)
        assert len(augment._OPERATIONS) == 14
        # the first is the identity
        assert numpy.array_equal(results[-1], noise) == (operation == 0)
        assert numpy.array_equal(results[-2], noise) == (operation == 0)
