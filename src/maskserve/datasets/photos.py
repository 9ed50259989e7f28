"""What a data set needs to know about its photos: the size, and whether they are whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from maskserve.datasets.flaws import FlawError

__all__ = ["read_upright_size", "require_decodable"]

_SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

_FORMATS = ("JPEG", "PNG", "WEBP")
"""Those that the rest of maskserve reads, by Pillow's names."""


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


def require_decodable(path: Path) -> None:
    """Decode all pixels of a photo.

    Raises:
        FlawError: It is missing, damaged or truncated.
    """
    with _opened(path) as image:
        image.load()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A photo, opened; the one place that translates what Pillow raises."""
    try:
        with warnings.catch_warnings():
            # Whether a photo has too many pixels is for those to say who serve it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                yield image
    except FileNotFoundError:
        raise FlawError("is missing") from None
    except UnidentifiedImageError:
        raise FlawError("is not a JPEG, PNG or WebP photo") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FlawError(f"cannot be read: {error}") from None
