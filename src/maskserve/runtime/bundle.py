"""Reading bundles: a folder, or a ``.zip`` of one, with ``model.onnx`` and ``manifest.json``."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from maskserve.core.categories import nearest_name
from maskserve.core.errors import (
    BundleCorruptError,
    BundleMissingError,
    UnknownModelError,
)
from maskserve.core.manifest import Manifest

__all__ = [
    "MANIFEST_NAME",
    "MODEL_NAME",
    "Bundle",
    "find_bundle",
    "read_bundle",
    "read_manifest",
    "shipped_bundles",
]

MODEL_NAME = "model.onnx"
MANIFEST_NAME = "manifest.json"

_Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True, repr=False)
class Bundle:
    """A bundle whose files are all as its manifest says.

    Attributes:
        path: The folder or ``.zip`` that it was read from.
        manifest: Describes the model.
        model: Content of ``model.onnx``.
    """

    path: Path
    manifest: Manifest
    model: bytes


def read_manifest(path: Path) -> Manifest:
    """What a bundle says of itself, its files left unread; errors as :func:`read_bundle`."""
    with _opened(path) as read:
        return _read_manifest(path, read)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle and check the sha256 of every file that its manifest names.

    A ``.zip`` is read in memory; nothing of it is unpacked. Its files may lie in one folder.

    Raises:
        BundleMissingError: There is nothing at ``path``, or no manifest in it.
        BundleCorruptError: A file is missing, changed or unreadable.
        BundleVersionError: It was written by a newer maskserve.
    """
    with _opened(path) as read:
        manifest = _read_manifest(path, read)
        contents = {
            name: _read_checked(path, name, sha256, read=read)
            for name, sha256 in manifest.files.items()
        }
    if MODEL_NAME not in contents:
        raise BundleCorruptError(f"{path}/{MANIFEST_NAME} lists no {MODEL_NAME}.")
    return Bundle(path, manifest, contents[MODEL_NAME])


def shipped_bundles() -> dict[str, Path]:
    """The bundles that are part of this package, by name, sorted; none is read."""
    folder = Path(str(files("maskserve") / "bundles"))
    return {found.parent.name: found.parent for found in sorted(folder.glob(f"*/{MANIFEST_NAME}"))}


def find_bundle(name_or_path: str | Path) -> Path:
    """Where a bundle lies that is given by the name of a shipped one or by its path.

    A shipped name comes first; write ``./balloon`` for a folder ``balloon``.

    Raises:
        UnknownModelError: It is neither; names the shipped bundles and the nearest of them.
    """
    shipped = shipped_bundles()
    name = str(name_or_path)
    if name in shipped:
        return shipped[name]
    path = Path(name_or_path)
    if path.exists():
        return path
    nearest = nearest_name(name, shipped)
    guess = f"Did you mean “{nearest}”? " if nearest else ""
    raise UnknownModelError(
        f"There is no model “{name}”, neither shipped nor at that path.",
        hint=f"{guess}Shipped: {', '.join(shipped) or 'none'}.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[_Read]:
    """Give a function that reads a file of the bundle by its name."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise BundleMissingError(
            f"There is no bundle at {path}: {error.strerror}.",
            hint=f"A bundle is a folder or a .zip with {MANIFEST_NAME} and {MODEL_NAME}.",
        ) from error
    except zipfile.BadZipFile as error:
        raise BundleCorruptError(f"{path} is neither a folder nor a .zip: {error}.") from error
    with archive:
        manifests = [n for n in archive.namelist() if PurePosixPath(n).name == MANIFEST_NAME]
        inside = min(manifests, key=len, default=MANIFEST_NAME).removesuffix(MANIFEST_NAME)
        yield lambda name: archive.read(inside + name)


def _read_manifest(path: Path, read: _Read) -> Manifest:
    try:
        text = read(MANIFEST_NAME)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleMissingError(
            f"{path} holds no {MANIFEST_NAME}, so it is not a bundle.",
            hint="“maskserve export” makes a bundle from a training run.",
        ) from error
    return Manifest.from_json(text, where=f"{path}/{MANIFEST_NAME}")


def _read_checked(path: Path, name: str, sha256: str, *, read: _Read) -> bytes:
    if PurePosixPath(name).name != name or name == ".." or "\\" in name:
        raise BundleCorruptError(f"{path}/{MANIFEST_NAME} names a file outside: “{name}”.")
    try:
        content = read(name)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleCorruptError(f"{path}: {name} cannot be read: {error}.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleCorruptError(
            f"{path}: {name} is not the file that the manifest describes (sha256 differs).",
            hint="Copy or export the bundle again.",
        )
    return content
