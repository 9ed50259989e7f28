"""Photos that show the same, whether or not their files are the same.

Each photo becomes a fingerprint: its grey values on a coarse grid, without what changes slowly
across the picture, since most skies and most rooms look alike there. Two photos are compared by
the correlation of their fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.datasets.photos import read_thumbnail

__all__ = ["Likeness", "find_alike", "fingerprint"]

_GRID = 32
"""Rows and columns of the grid."""

_FINE = 2.0
"""Details larger than about so many cells are left out."""

_LEAST_CONTRAST = 0.25
"""Grey levels, of 255: a photo with less detail shows nothing to compare."""

# Measured on the 540 photos of balloon, coco-mini, photos-without-balloons and nuclei: no two of
# them correlate by more than 0.41 as they are, nor by more than 0.37 when one is mirrored. Copies
# of them that were saved again as JPEG at quality 60 or 25, halved, quartered, brightened (by
# 15 % and 8 levels), gamma-corrected (0.75), made grey or mirrored correlate by 0.979 and more
# with their originals; copies that lost 5 % at their borders do so by 0.59 and are not found.
# In between are photos of one scene by a camera that stood still.
_ALIKE = 0.9
_COPY = 0.97

_BLOCK = 1024

Fingerprint = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Likeness:
    """That photo ``second`` shows what the earlier photo ``first`` shows.

    Attributes:
        first: Number of the photo, from 0.
        second: Number of a later photo.
        is_mirrored: Whether one is the other's mirror image.
        is_copy: Whether they are alike to the last detail.
    """

    first: int
    second: int
    is_mirrored: bool
    is_copy: bool


def fingerprint(path: Path) -> Fingerprint:
    """What is compared of a photo, all of which is decoded for it.

    Returns:
        float32, shape (1024,), of length 1; zeros for a photo that shows nothing.

    Raises:
        FlawError: The photo is missing, damaged or truncated.
    """
    thumbnail = read_thumbnail(path, side_px=_GRID)
    detail = thumbnail - np.asarray(cv2.GaussianBlur(thumbnail, (0, 0), _FINE))
    detail -= detail.mean()
    if detail.std() < _LEAST_CONTRAST:
        return np.zeros(_GRID * _GRID, dtype=np.float32)
    return np.asarray(detail / np.linalg.norm(detail), dtype=np.float32).ravel()


def find_alike(fingerprints: Sequence[Fingerprint]) -> Iterator[Likeness]:
    """For each photo that shows the same as an earlier one, the earlier one most like it."""
    if not fingerprints:
        return
    prints = np.stack(fingerprints)
    mirrored = prints.reshape(-1, _GRID, _GRID)[:, :, ::-1].reshape(prints.shape)
    for start in range(0, len(prints), _BLOCK):
        block = prints[start : start + _BLOCK]
        earlier = slice(0, start + len(block))
        as_is = np.tril(block @ prints[earlier].T, start - 1)
        turned = np.tril(block @ mirrored[earlier].T, start - 1)
        likeness = np.maximum(as_is, turned)
        most_like = np.argmax(likeness, axis=1)
        for row in np.flatnonzero(likeness.max(axis=1) > _ALIKE):
            first = int(most_like[row])
            yield Likeness(
                first,
                start + int(row),
                is_mirrored=bool(turned[row, first] > as_is[row, first]),
                is_copy=bool(likeness[row, first] > _COPY),
            )
