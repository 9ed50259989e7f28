"""What a data set needs to know about its photos and masks, which Pillow reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from maskserve.core.masks import Mask
from maskserve.datasets.flaws import FlawError

__all__ = [
    "listed_photos",
    "photo_file_name",
    "read_mask",
    "read_thumbnail",
    "read_upright_size",
]

_SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

_PLAIN_MODES = frozenset({"1", "L", "I;16", "I"})
"""Pillow's modes with one number a pixel, which need no conversion."""

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
}
"""Of the formats that maskserve reads, by Pillow's names; the first suffix is the usual one."""

_PHOTO_SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)

_FOREIGN_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jp2", ".mpo", ".tif", ".tiff")
)
"""Photos that we cannot read: to be told of, not to be passed over."""


def listed_photos(folder: Path) -> list[Path]:
    """All photos in a folder and below, sorted; also those of types that cannot be read."""
    known = _PHOTO_SUFFIXES | _FOREIGN_SUFFIXES
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)


def photo_file_name(path: Path) -> str:
    """A photo's file name, with a suffix that tells its type.

    Raises:
        FlawError: It is not a photo.
    """
    if path.suffix.lower() in _PHOTO_SUFFIXES:
        return path.name
    with _opened(path) as image:
        return path.name + _SUFFIXES[str(image.format)][0]


def read_mask(file: Path | BytesIO) -> Mask:
    """The mask of one instance: a picture of one value on a black ground.

    Returns:
        bool, shape (H, W); not turned by any EXIF orientation. There may be no pixel in it.

    Raises:
        FlawError: The file is missing or damaged, or has several values: then it may be meant
            for several instances, or it has soft edges.
    """
    with _opened(file) as image:
        values = np.asarray(image if image.mode in _PLAIN_MODES else image.convert("L"))
    mask: Mask = values != 0
    if np.any(mask & (values != values.max())):
        raise FlawError("has more than two values, but a mask is one value on a black ground")
    return mask


def read_upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photo after its EXIF orientation is applied; decodes no pixel.

    Raises:
        FlawError: There is no such file, or it does not begin like a photo.
    """
    with _opened(path) as image:
        width, height = image.size
        # The method of the base class: the one for PNG decodes the whole image.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return (width, height) if orientation in _SIDEWAYS else (height, width)


def read_thumbnail(path: Path, *, side_px: int) -> npt.NDArray[np.float32]:
    """Decode all pixels of a photo and average them on a square grid, whatever its shape.

    Returns:
        Grey values in 0..255 of the upright photo: float32, shape (side_px, side_px).

    Raises:
        FlawError: It is missing, damaged or truncated.
    """
    with _opened(path) as image:
        grey = ImageOps.exif_transpose(image).convert("L").convert("F")
        return np.asarray(grey.resize((side_px, side_px), Image.Resampling.BOX))


@contextmanager
def _opened(file: Path | BytesIO) -> Iterator[Image.Image]:
    """A photo, opened; the one place that translates what Pillow raises."""
    try:
        with warnings.catch_warnings():
            # Whether a photo has too many pixels is for those to say who serve it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=tuple(_SUFFIXES)) as image:
                yield image
    except FileNotFoundError:
        raise FlawError("is missing") from None
    except UnidentifiedImageError:
        raise FlawError("is not a JPEG, PNG or WebP photo") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlawError(f"cannot be read: {error}") from None
