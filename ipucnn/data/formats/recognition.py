"""Finds the dataset format of the folder or URL given as `--data-dir`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Collection, Iterator, List, Optional, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.names import class_key
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry, registry
from ipucnn.data.left_out import is_system_folder, unpacking
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import shown


def is_url(data_dir: str) -> bool:
    """Return whether `data_dir` is a URL and not a folder."""
    return "://" in data_dir


def offering(what: str, used: Registry) -> str:
    """Return the names of the datasets whose records define `what`, for an error message."""
    return ", ".join(name for name in used.names("dataset")
                     if getattr(used.get_typed(DatasetSpec, name), what))


def read_by(data: DatasetSpec, data_dir: Optional[str], used: Registry) -> DatasetSpec:
    """Return the record of the dataset that reads a folder or URL.

    Args:
        data: the named dataset.
        data_dir: the folder or URL; None where none is named.
        used: the registry in which the alternatives are looked up.

    Returns:
        `data`, or one of `data.also`: where the folder has the markers of that one and not of
        `data`, or where only that one reads URLs.

    Raises:
        UsageError: it is a URL, and the dataset does not read URLs, or not of this kind.
    """
    if not data_dir:
        return data
    others = [used.get_typed(DatasetSpec, name) for name in data.also]
    if is_url(data_dir):
        store = is_store(data_dir)
        streaming = next((spec for spec in (data, *others)
                          if spec.streams or (spec.stores and store)), None)
        if streaming is None:
            where = "a store" if store else "a URL"
            offers = [offering("streams", used), *([offering("stores", used)] if store else [])]
            raise UsageError(f"dataset {data.name!r} is not read from {where} "
                             f"({shown(data_dir)!r})",
                             "copy it to this machine; datasets that are: " + ", ".join(offers))
        return streaming
    if not others or marked(data, data_dir):
        return data
    return next((spec for spec in others if marked(spec, data_dir)), data)


def dataset_in(data_dir: str, used: Registry, default: str) -> str:
    """Return the name of the dataset that a folder or URL holds, or `default` if none is known."""
    if is_url(data_dir):
        if is_store(data_dir) and not _streams_from(data_dir, used):
            images = default and used.get_typed(DatasetSpec, default).stores
            return default if images else next(
                (name for name in used.names("dataset") for spec in [
                    used.get_typed(DatasetSpec, name)] if spec.stores and spec.labelled), default)
        return next((name for name in used.names("dataset")
                     if used.get_typed(DatasetSpec, name).streams), default)
    try:
        return recognised(os.path.expanduser(data_dir), used)
    except DataError:
        return default


def dataset_here(used: Registry, default: str) -> str:
    """Return the name of the labelled dataset that lies in its default folder, or `default`."""
    specs = (used.get_typed(DatasetSpec, name) for name in used.names("dataset"))
    return next((spec.name for spec in specs if spec.labelled and spec.default_data_dir
                 and os.path.isdir(spec.default_data_dir)), default)


def scored_as(data_dir: str, class_names: Collection[str], used: Registry) -> Optional[str]:
    """Return the name of the labelled dataset in a folder, if its classes match a model.

    Folders are classes if one of them has the name of a class of the model, or if their names are
    numbers of classes. They are directly in the folder, in a folder that is alone in it, or in
    folders with the names of splits. Shards contain the names of their classes. Otherwise folders
    are not classes, and the result is None.

    Args:
        data_dir: the folder or URL.
        class_names: of the model.
        used: the registry in which datasets are looked up.
    """
    if is_url(data_dir) and not is_store(data_dir):
        return None
    if is_store(data_dir) and _streams_from(data_dir, used):
        return dataset_in(data_dir, used, "") or None
    root = os.path.expanduser(data_dir)
    known = set(map(class_key, class_names))
    numbers = {str(number) for number in range(len(class_names))}
    for depth, folders in _folder_names(root):
        if any(class_key(name) in known for name in folders) \
                or (len(folders) > 1 and numbers.issuperset(folders)):
            return dataset_in(data_dir, used, "") or None
        named = [name for name in folders
                 if not is_system_folder(name) and not name.startswith(".")]
        folders[:] = [name for name in named if depth < _DEEPEST
                      and (len(named) == 1 or _SPLIT.search(name.lower()))]
    return shards_in(data_dir, used)


def _folder_names(root: str) -> Iterator[Tuple[int, List[str]]]:
    """Yield the depth of each folder and the names of the folders in it, which may be cleared."""
    if is_store(root):
        from ipucnn.data.image_files import folders_in

        names = folders_in(root)
        yield 0, names  # those that remain are entered
        for folder in names:
            yield 1, folders_in(f"{root.rstrip('/')}/{folder}")
        return
    for folder, folders, _ in os.walk(root, followlinks=True):  # to a depth that ends loops
        yield os.path.relpath(folder, root).count(os.sep) + (folder != root), folders


def _streams_from(url: str, used: Registry) -> bool:
    """Return whether a folder on a store has the markers of a dataset that streams."""
    store = Store(url)
    return any(store.stat(marker) is not None for name in used.names("dataset")
               for spec in [used.get_typed(DatasetSpec, name)] if spec.streams
               for marker in spec.markers if "*" not in marker)


def shards_in(data_dir: str, used: Registry) -> Optional[str]:
    """Return the name of the dataset of shards that a folder holds, or None."""
    local = not is_url(data_dir) or (is_store(data_dir) and _streams_from(data_dir, used))
    found = dataset_in(data_dir, used, "") if local else ""
    # a format that is also read from a URL holds nothing but its own files
    return found if found and used.get_typed(DatasetSpec, found).streams else None


def format_of(data_dir: str, data: DatasetSpec, used: Registry) -> DatasetSpec:
    """Return the record of the dataset that reads other images than those of a training.

    This is another one where the folder holds shards, or where the training's reads no folders but
    those of shards.

    Args:
        data_dir: the folder or URL.
        data: the dataset of the training.
        used: the registry in which the alternatives are looked up.
    """
    found = shards_in(data_dir, used)
    if found is None and (data.streams or not data.reads_folder):
        found = dataset_in(data_dir, used, "")
    return used.get_typed(DatasetSpec, found) if found else data


_SPLIT = re.compile("train|val|test|dev")
"""A part of the names of splits."""

_DEEPEST = 4
"""Levels of folders above classes: wrapper folders, and one for each split."""


def recognised(path: str, used: Optional[Registry] = None) -> str:
    """Return the name of the dataset whose markers a folder has.

    Raises:
        DataError: the folder has the markers of no dataset.
    """
    if os.path.isfile(path):
        raise DataError(f"{path!r} is no folder", unpacking(path, "name the folder of the dataset"))
    used = used or registry()
    specs = [used.get_typed(DatasetSpec, name) for name in used.names("dataset")]
    matching = [(longest, spec.name) for spec in specs
                for longest in [marked(spec, path)] if longest]
    if not matching:
        raise DataError(f"folder {path!r} looks like none of the known datasets",
                        "name its format with '--data' ('--data real' takes any images); is it "
                        "the right folder?")
    return max(matching)[1]


def marked(spec: DatasetSpec, path: str) -> int:
    """Return the length of the longest marker of a dataset found in a folder; 0 without one."""
    if not os.path.isdir(path):
        return 0
    return max((len(marker) for marker in spec.markers
                if next(Path(path).glob(marker), None) is not None), default=0)
