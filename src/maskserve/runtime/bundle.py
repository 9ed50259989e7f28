"""Reading bundles: a folder, or a ``.zip`` of one, with ``model.onnx`` and ``manifest.json``."""

from __future__ import annotations

import hashlib
import lzma
import struct
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

_MAX_BYTES = 2**31
"""Of all files together; more than ONNX can have in one file."""
_MAX_MANIFEST_BYTES = 4 * 2**20
_MAX_RATIO = 100
"""Weights hardly get smaller when they are packed; a file that does is there to fill the memory."""
_LOCATION = b"location"

_Read = Callable[[str, int], bytes]
"""Content of a file, by its name and the most bytes that it may have."""

# What zipfile raises for damaged, encrypted and unknown archives is not documented as a whole.
_DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    ValueError,
    struct.error,
)


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
        BundleCorruptError: A file is missing, changed, unreadable or far too large, or the graph
            keeps tensors in other files.
        BundleVersionError: It was written by a newer maskserve.
    """
    with _opened(path) as read:
        manifest = _read_manifest(path, read)
        model = b""
        left = _MAX_BYTES
        for name, sha256 in manifest.files.items():
            content = _read_checked(path, name, sha256, read=read, limit=left)
            left -= len(content)
            if name == MODEL_NAME:
                model = content
    if MODEL_NAME not in manifest.files:
        raise BundleCorruptError(f"{path}/{MANIFEST_NAME} lists no {MODEL_NAME}.")
    if _names_other_files(model):
        raise BundleCorruptError(
            f"{path}: {MODEL_NAME} keeps tensors in other files, which no sha256 stands for.",
            hint="Save it with all tensors inside.",
        )
    return Bundle(path, manifest, model)


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
        yield lambda name, limit: _read_from_folder(path / name, limit)
        return
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise BundleMissingError(
            f"There is no bundle at {path}: {error.strerror or error}.",
            hint=f"A bundle is a folder or a .zip with {MANIFEST_NAME} and {MODEL_NAME}.",
        ) from error
    except _DAMAGED_ZIP as error:
        raise BundleCorruptError(f"{path} is neither a folder nor a .zip: {error}.") from error
    with archive:
        names = archive.namelist()
        if len(set(names)) < len(names):  # which one counts would depend on who reads it
            raise BundleCorruptError(f"{path} holds two files of the same name.")
        manifests = [n for n in names if PurePosixPath(n).name == MANIFEST_NAME]
        inside = min(manifests, key=len, default=MANIFEST_NAME).removesuffix(MANIFEST_NAME)
        yield lambda name, limit: _read_from_zip(archive, inside + name, limit)


def _read_from_folder(path: Path, limit: int) -> bytes:
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError("there is no such file")
    with path.open("rb") as file:
        return _within(file.read(limit + 1), limit)


def _read_from_zip(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    # zipfile never gives more than an entry declares, so that what is declared can be judged.
    entry = archive.getinfo(name)
    if entry.file_size > max(_MAX_RATIO * entry.compress_size, _MAX_MANIFEST_BYTES):
        raise ValueError(f"it is packed to less than a {_MAX_RATIO}th")
    with archive.open(entry) as file:
        return _within(file.read(limit + 1), limit)


def _within(content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return content


def _read_manifest(path: Path, read: _Read) -> Manifest:
    where = f"{path}/{MANIFEST_NAME}"
    try:
        text = read(MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    except (FileNotFoundError, KeyError) as error:
        raise BundleMissingError(
            f"{path} holds no {MANIFEST_NAME}, so it is not a bundle.",
            hint="“maskserve export” makes a bundle from a training run.",
        ) from error
    except (OSError, *_DAMAGED_ZIP) as error:
        raise BundleCorruptError(f"{where} cannot be read: {error}.") from error
    return Manifest.from_json(text, where=where)


def _read_checked(path: Path, name: str, sha256: str, *, read: _Read, limit: int) -> bytes:
    if PurePosixPath(name).name != name or name == ".." or "\\" in name or "\0" in name:
        raise BundleCorruptError(f"{path}/{MANIFEST_NAME} names a file outside: “{name}”.")
    try:
        content = read(name, limit)
    except (OSError, KeyError, *_DAMAGED_ZIP) as error:
        raise BundleCorruptError(f"{path}: {name} cannot be read: {error}.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleCorruptError(
            f"{path}: {name} is not the file that the manifest describes (sha256 differs).",
            hint="Copy or export the bundle again.",
        )
    return content


def _names_other_files(model: bytes) -> bool:
    """Whether an ONNX graph may keep tensors in files of their own, below the current folder.

    Such a tensor has an entry with the key “location”, a text of eight bytes: in protobuf, its
    length stands before it, which may be padded.
    """
    at = model.find(_LOCATION)
    while at >= 0:
        before = model[max(0, at - 10) : at]
        if before.endswith(b"\x08") or before.rstrip(b"\x80\x00").endswith(b"\x88"):
            return True
        at = model.find(_LOCATION, at + 1)
    return False
