"""Contact sheets: images of a dataset by class, as stored and after preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import IpucnnError, NoSplitError, UsageError
from ipucnn.core.files import write_bytes
from ipucnn.core.options.assignment import owned_by
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.augment import TrainTransform
from ipucnn.data.dataset_checks import image_of
from ipucnn.data.formats.recognition import dataset_in
from ipucnn.data.opening import open_dataset
from ipucnn.data.prepare import Preparation
from ipucnn.reports.sheet import Sheet, Shown
from ipucnn.reports.thumbnails import thumbnail

FORMATS = (".html", ".htm", ".png", ".jpg", ".jpeg")

MOST_IMAGES, MOST_CLASSES = 480, 240
"""Maximum numbers of images and classes of a sheet; all classes are counted."""

UNLABELLED = "images without labels"

_SIDE = 96


@dataclass(frozen=True)
class SheetRequest:
    """The options of a contact sheet.

    Attributes:
        data_dir: folder of the dataset.
        preprocessing: of the network.
        data: name of its format; recognised when None.
        split: `train` or `validation`; when None, training images if there are such.
        augmented: whether to show the random augmentation of a training instead of the
            preprocessing of validation.
        per_class: images of each class, at most.
        seed: of the random draws.
        rand_augment: operations of RandAugment per image.
        min_area: smallest area of a random crop relative to the image.
    """

    data_dir: str
    preprocessing: Preprocessing
    data: Optional[str] = None
    split: Optional[str] = None
    augmented: bool = False
    per_class: int = 4
    seed: int = 0
    rand_augment: int = 0
    min_area: float = 0.08

    @property
    def draws(self) -> int:
        """Number of prepared images beside each stored one."""
        return 3 if self.augmented else 1


def contact_sheet(request: SheetRequest, registry: Registry) -> Sheet:
    """Read the images of a contact sheet.

    Raises:
        DataError: the dataset cannot be found or read.
        UsageError: it is unknown, or generates its images on the device.
    """
    spec, dataset = _opened(request, registry)
    members = _members(dataset)
    shown = dict(list(members.items())[:MOST_CLASSES])
    each = max(1, min(request.per_class, MOST_IMAGES // max(1, len(shown) * request.draws)))
    notes = list(dataset.notes)
    if len(shown) < len(members):
        notes.append(f"the first {len(shown)} of {len(members)} classes are shown; all are counted")
    size = request.preprocessing.input_size
    transform = TrainTransform(
        size, request.seed, dataset, rand_augment=request.rand_augment,
        min_area=request.min_area) if request.augmented else None
    preparation = Preparation(dataset, request.preprocessing, transform)
    classes = {name: [_shown(preparation, index, request.draws)
                      for index in _spread(indices, each)] for name, indices in shown.items()}
    bad = [image for images in classes.values() for image in images if image.problem]
    if bad:
        notes.append(f"{len(bad)} of the shown images cannot be read, the first: {bad[0].problem}")
    return Sheet(
        f"{spec.name} in {request.data_dir}",
        [("images", f"{len(dataset):,}"), ("classes", f"{len(dataset.class_names):,}"),
         ("split", dataset.split or request.split or "all"), ("input size", f"{size} pixels")],
        {name: len(indices) for name, indices in members.items()},
        classes,
        f"{request.draws} random draws" if request.augmented else "prepared for validation", notes)


def write_sheet(sheet: Sheet, out: str) -> None:
    """Write a contact sheet as a page or as an image, by the suffix of its name.

    Raises:
        UsageError: no format has this suffix.
        DataError: it cannot be written.
    """
    suffix = check_format(out)
    if suffix in (".html", ".htm"):
        from ipucnn.reports.page import rendered

        text = rendered("contact_sheet.html.j2", title=sheet.title, sheet=sheet,
                        most=max(sheet.counts.values(), default=1), thumbnail=_thumbnail)
        write_bytes(out, text.encode("utf-8"))
    else:
        from ipucnn.reports.pictures import encoded, sheet_picture

        write_bytes(out, encoded(sheet_picture(sheet), suffix))


def check_format(out: str) -> str:
    """Return the suffix of a file to write.

    Raises:
        UsageError: no format has it.
    """
    suffix = Path(out).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"contact sheet {out!r} has no known format",
                         "its name must end in .html, .png or .jpg")
    return suffix


def _thumbnail(pixels: Any) -> str:
    return thumbnail(pixels, _SIDE)


def _opened(request: SheetRequest, registry: Registry) -> Tuple[DatasetSpec, ImageDataset]:
    name = request.data or dataset_in(request.data_dir, registry, "real")
    spec = registry.get_typed(DatasetSpec, name)
    if spec.on_device or not spec.reads_folder:
        raise UsageError(f"dataset {spec.name!r} reads no folder", "name another with '--data'")
    owned = owned_by("dataset", spec, {}, registry)
    try:
        return spec, _open(spec, request, request.split or "train", owned, registry)
    except NoSplitError:
        if request.split:
            raise
    return spec, _open(spec, request, None, owned, registry)


def _open(spec: DatasetSpec, request: SheetRequest, split: Optional[str], owned: PluginOptions,
          registry: Registry) -> ImageDataset:
    return open_dataset(spec, DatasetRequest(
        request.data_dir, request.preprocessing.input_size, seed=request.seed, split=split),
        owned, registry, no_split_hint="leave '--split' out to show all images")


def _members(dataset: ImageDataset) -> Dict[str, List[int]]:
    """Return the images of every class; those of no class are in a class of their own."""
    members: Dict[str, List[int]] = {name: [] for name in dataset.class_names}
    for index in range(len(dataset)):
        labels = dataset.labels(index) if dataset.class_names else ()
        for name in [dataset.class_names[label] for label in labels] or [UNLABELLED]:
            members.setdefault(name, []).append(index)
    return members


def _spread(indices: Sequence[int], count: int) -> List[int]:
    """Return at most `count` of them at equal distances."""
    count = min(count, len(indices))
    return [indices[place * len(indices) // count] for place in range(count)]


def _shown(preparation: Preparation, index: int, draws: int) -> Shown:
    dataset = preparation.dataset
    found = Shown(dataset.name(index))
    try:
        found.stored = image_of(dataset, index).permute(1, 2, 0).numpy()
        for epoch in range(draws):
            drawn = preparation.drawn(index, epoch)
            pixels, size = preparation.decoded(preparation.read(index), index, drawn)
            found.prepared.append(preparation.transformed(pixels, size, drawn))
    except IpucnnError as error:
        found.problem = error.message
    return found
