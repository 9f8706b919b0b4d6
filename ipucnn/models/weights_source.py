"""Finds weights files: downloaded ones, files named by a URL, and files within packages."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Optional, Sequence, Tuple
from urllib.parse import urlsplit

from ipucnn.core.errors import DataError, UsageError, WeightsError
from ipucnn.core.files import cache_dir, expanded_path
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.options.parts import names_own, names_published
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.records import ModelSpec, PublishedWeights
from ipucnn.data.remote.download import fetch, file_name, sha256
from ipucnn.data.remote.stores import is_store
from ipucnn.data.remote.transfer import shown

MIRROR_VARIABLE = "IPUCNN_WEIGHTS_URL"

_PACKAGE = re.compile(r"package:(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)/(?P<file>[^\\]+)")
_OWN = "use '--weights random', or '--weights FILE' with a file of your own"
_UNIQUE = 8
"""Number of digits of a digest that identify a file of any name."""


def published_file(published: PublishedWeights, spec: ModelSpec) -> Tuple[str, Path]:
    """Return the URL of published weights, without credentials, and the verified local file.

    Downloads are stored in the cache by URL and digest. Files of an older cache, which are named
    by the last part of the URL, are used if their digest matches.

    Raises:
        WeightsError: the file cannot be found or downloaded, or is another one.
    """
    path = local_file(published.url, spec.requires)
    if path is not None:
        if published.sha256 and not _is(path, published.sha256):
            raise WeightsError(
                f"{published.url!r} has hash {sha256(path)[:max(8, len(published.sha256))]}, "
                f"expected {published.sha256}", "install or copy it again; or " + _OWN)
        return published.url, path
    if not published.sha256:
        raise WeightsError(f"weights '{published.tag}' of model {spec.name!r} are published "
                           "without a digest, and are not downloaded unchecked",
                           f"download {published.url} by hand and use '--weights FILE'; their "
                           "plugin should state 'sha256'")
    mirror = os.environ.get(MIRROR_VARIABLE)
    address = f"{mirror.rstrip('/')}/{file_name(published.url)}" if mirror else published.url
    folder = cache_dir() / "weights"
    old = folder / file_name(published.url)
    if len(published.sha256) >= _UNIQUE and _is(old, published.sha256):
        return shown(address), old
    try:
        return shown(address), fetch(address, folder, published.sha256, _cached_name(published))
    except DataError as error:
        raise WeightsError(
            error.message, f"{error.hint}; or use '--weights random', or download {address} by "
            "hand and use '--weights FILE'") from error


def published_weights(spec: ModelSpec, weights: str) -> Optional[PublishedWeights]:
    """Return the published weights that a value of `--weights` names; None for others.

    Raises:
        UsageError: there are no such published weights.
    """
    if not names_published(weights):
        return None
    return named_weights(spec, weights)


def named_weights(spec: ModelSpec, weights: str) -> PublishedWeights:
    """Return the published weights of a value of `--weights` that names some.

    Raises:
        WeightsError: the model has none.
        UsageError: it has no such ones.
    """
    tag = weights.partition(":")[2]
    if not spec.weights:
        raise WeightsError(f"model {spec.name!r} has no published weights", _OWN)
    if not tag:
        return spec.weights[0]
    for published in spec.weights:
        if key(published.tag) == key(tag):
            return published
    tags = [published.tag for published in spec.weights]
    raise UsageError(f"model {spec.name!r} has no published weights {tag!r}",
                     f"{did_you_mean(tag, tags)} tags: {', '.join(tags)}".strip())


def identified_weights(spec: ModelSpec, weights: str) -> Optional[PublishedWeights]:
    """Return the published weights that a value of `--weights` names or contains; None for others.

    A local file contains published weights if its digest begins with theirs, whatever its name.

    Raises:
        UsageError: there are no such published weights.
        WeightsError: a URL names no file.
    """
    if not names_own(weights):
        return published_weights(spec, weights)
    path = weights_path(weights)
    candidates = [known for known in spec.weights if len(known.sha256) >= _UNIQUE]
    if not candidates or not path.is_file():
        return None
    with suppress(OSError):
        digest = sha256(path)
        return next((known for known in candidates
                     if digest.startswith(known.sha256.lower())), None)
    return None


def weights_path(weights: str) -> Path:
    """Return the file that a value of `--weights` names, which may not exist.

    Raises:
        WeightsError: see `local_file`.
    """
    return local_file(weights) or expanded_path(weights)


def local_file(address: str, requires: Sequence[Requirement] = ()) -> Optional[Path]:
    """Return the file that a URL or a `package:` address names; None for any other text.

    Args:
        address: ``file:///folder/net.pth``, or ``package:module/folder/net.pth`` for a file within
            an importable package, which is not imported, or ``s3://bucket/net.pth`` for one on a
            store, of which the copy in the cache is returned; for a folder of checkpoints there,
            the folder of copies.
        requires: modules whose command the error names if the package is missing.

    Raises:
        WeightsError: it names no file.
    """
    if address.startswith("package:"):
        return _in_package(address, requires)
    if is_store(address):
        return _on_store(address)
    parts = urlsplit(address)
    if parts.scheme != "file":
        return None
    from urllib.request import url2pathname  # a module of the HTTP client

    path = Path(url2pathname(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise WeightsError(f"{address!r} names no file of this machine",
                           "write it as file:///folder/file")
    if not path.is_file():
        raise WeightsError(f"there is no weights file {address!r}",
                           "correct the path, or " + _OWN)
    return path


def _on_store(address: str) -> Path:
    from ipucnn.models.store_paths import on_store, place_of, present

    try:
        path = place_of(address)
        if on_store(path) is None:
            present(path)
    except DataError as error:
        raise WeightsError(error.message, error.hint) from error
    if not path.exists():
        raise WeightsError(f"there is no weights file {shown(address)!r}",
                           "correct the address, or " + _OWN)
    return path


def _in_package(address: str, requires: Sequence[Requirement]) -> Path:
    match = _PACKAGE.fullmatch(address)
    if not match or ".." in PurePosixPath(match["file"]).parts:
        raise WeightsError(f"{address!r} names no file within a package",
                           "write it as package:MODULE/FOLDER/FILE")
    module = match["module"]
    # The files of `importlib.resources` need Python 3.9 and import the package; weights are only
    # looked for beside its modules.
    found = None
    with suppress(ImportError, ValueError):
        found = find_spec(module)
    if found is None:
        commands = [f"run '{required.install}'" for required in requires
                    if required.module.partition(".")[0] == module.partition(".")[0]]
        raise WeightsError(f"package {module!r} of weights {address!r} is not installed",
                           f"{(commands or ['install the package'])[0]}; or {_OWN}")
    for folder in found.submodule_search_locations or ():
        path = Path(folder, match["file"])
        if path.is_file():
            return path
    raise WeightsError(f"package {module!r} has no file {match['file']!r}",
                       "another version of the package may have it; or " + _OWN)


def _cached_name(published: PublishedWeights) -> str:
    """Return the file's own name, with a part that depends on URL and digest."""
    name = PurePosixPath(file_name(published.url))
    content = f"{published.url} {published.sha256.lower()}".encode()
    return f"{name.stem}-{hashlib.sha256(content).hexdigest()[:12]}{name.suffix}"


def _is(path: Path, digest: str) -> bool:
    """Return whether `path` is a readable file with this digest."""
    with suppress(OSError):
        return path.is_file() and sha256(path).startswith(digest.lower())
    return False
