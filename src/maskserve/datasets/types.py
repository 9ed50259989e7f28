"""One typed sample for every annotation format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskserve.core.categories import Categories
from maskserve.core.masks import Mask, Rle, decode_rle, polygons_to_rle, rle_area, rle_box_xyxy

__all__ = ["Annotation", "Dataset", "Polygon", "Sample"]

Polygon = npt.NDArray[np.float64]
"""Vertices (x, y) in pixels of the upright photo: float64, shape (K, 2), K >= 3."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """One annotated instance: either polygons or a run-length encoding.

    Attributes:
        class_index: 0-based.
        polygons: The parts of the instance, clipped to the photo; empty if ``rle`` is given.
        rle: COCO compressed RLE; None if ``polygons`` are given.
        is_crowd: A region with many instances that nobody told apart (COCO's ``iscrowd``).
            Evaluation ignores what is found there; training does not learn from it.
    """

    class_index: int
    polygons: tuple[Polygon, ...] = ()
    rle: Rle | None = None
    is_crowd: bool = False

    def __post_init__(self) -> None:
        if bool(self.polygons) == (self.rle is not None):
            raise ValueError("an annotation has either polygons or an RLE")

    def to_rle(self, size: tuple[int, int]) -> Rle:
        """COCO compressed RLE in a photo of ``size`` (height, width)."""
        return self.rle if self.rle is not None else polygons_to_rle(self.polygons, size)

    def mask(self, size: tuple[int, int]) -> Mask:
        """bool, shape ``size``."""
        return decode_rle(self.to_rle(size))

    def box_xyxy(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Tight box around the mask: float32, shape (4,)."""
        return rle_box_xyxy(self.to_rle(size))

    def area_px(self, size: tuple[int, int]) -> int:
        return rle_area(self.to_rle(size))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One photo and what was annotated in it.

    Attributes:
        image_path: The file of the photo.
        image_id: Number that is unique in the data set; COCO's own where there is one.
        image_size: (height, width) of the upright photo.
        annotations: May be empty: a photo without any instance is a sample like others.
    """

    image_path: Path
    image_id: int
    image_size: tuple[int, int]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples that share one list of classes.

    Attributes:
        name: For people: the folder's name and the split, such as ``balloon val``.
        categories: Names and COCO ids of the classes.
        samples: In the order of the annotation file.
    """

    name: str
    categories: Categories
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)
