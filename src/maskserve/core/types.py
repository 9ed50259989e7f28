"""The one result type of maskserve, and the coverage computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from maskserve.core.boxes import Boxes, xyxy_to_xywh
from maskserve.core.errors import MissingExtraError
from maskserve.core.masks import Mask, MaskCrop, Rle, crop_to_rle, union

if TYPE_CHECKING:
    from supervision import Detections

__all__ = ["ClassCoverage", "CocoResult", "Coverage", "Instances", "percent"]


def percent(part_px: int, total_px: int) -> float:
    """Share in percent, 0..100, to 4 decimals: finer than one pixel of a megapixel photo."""
    return round(100.0 * part_px / total_px, 4)


@dataclass(frozen=True, slots=True)
class ClassCoverage:
    """How much of the photo the masks of one class cover, overlaps counted once."""

    masked_px: int
    masked_percent: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the photo is covered by masks, overlaps counted once.

    ``masked_px + unmasked_px == total_px == height * width``. The classes' shares may add up
    to more than ``masked_px``, since a pixel can belong to instances of two classes.

    Attributes:
        per_class: One entry for each class of the model, also where nothing was found.
    """

    masked_px: int
    unmasked_px: int
    total_px: int
    masked_percent: float
    unmasked_percent: float
    per_class: dict[str, ClassCoverage]


class CocoResult(TypedDict):
    """One found instance in COCO's format of results: https://cocodataset.org/#format-results."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float
    segmentation: Rle


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """What was found in one photo, best score first.

    Attributes:
        image_size: (height, width) of the upright photo; boxes and masks are in its pixels.
        class_names: Names of all classes of the model; indexed by ``class_indices``.
        boxes_xyxy: float32, shape (N, 4), clipped to the photo.
        scores: float32, shape (N,), in 0..1, descending.
        class_indices: int64, shape (N,), 0-based.
        crops: N masks, each as large as its box.
    """

    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    boxes_xyxy: Boxes
    scores: npt.NDArray[np.float32]
    class_indices: npt.NDArray[np.int64]
    crops: tuple[MaskCrop, ...]

    def __post_init__(self) -> None:
        n = len(self.crops)
        for name, array, shape, kind in (
            ("boxes_xyxy", self.boxes_xyxy, (n, 4), np.float32),
            ("scores", self.scores, (n,), np.float32),
            ("class_indices", self.class_indices, (n,), np.int64),
        ):
            if array.shape != shape or array.dtype != kind:
                raise ValueError(
                    f"{name}: expected {np.dtype(kind)} of shape {shape} for {n} crops, "
                    f"got {array.dtype} of shape {array.shape}"
                )

    @classmethod
    def empty(cls, image_size: tuple[int, int], class_names: Sequence[str]) -> Instances:
        """Nothing found."""
        return cls(
            image_size,
            tuple(class_names),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            (),
        )

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def masks(self) -> Mask:
        """All masks at the photo's size: bool, shape (N, H, W). Made anew at each access."""
        dense = np.zeros((len(self), *self.image_size), dtype=np.bool_)
        for mask, crop in zip(dense, self.crops, strict=True):
            mask[crop.slices] = crop.pixels
        return dense

    @property
    def areas_px(self) -> npt.NDArray[np.int64]:
        """Pixels of each mask: int64, shape (N,)."""
        return np.array([crop.area_px for crop in self.crops], dtype=np.int64)

    def rles(self) -> list[Rle]:
        """COCO compressed RLE of each mask."""
        return [crop_to_rle(crop, self.image_size) for crop in self.crops]

    def select(self, keep: npt.NDArray[np.bool_]) -> Instances:
        """The instances where ``keep``, bool of shape (N,), is True; order unchanged."""
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[keep],
            scores=self.scores[keep],
            class_indices=self.class_indices[keep],
            crops=tuple(crop for crop, kept in zip(self.crops, keep, strict=True) if kept),
        )

    def coverage(self) -> Coverage:
        """Covered and uncovered pixels of the photo, in all and by class."""
        height, width = self.image_size
        total_px = height * width
        covered = np.zeros(self.image_size, dtype=np.bool_)
        per_class = {}
        for index, name in enumerate(self.class_names):
            members = [
                crop
                for crop, class_index in zip(self.crops, self.class_indices, strict=True)
                if class_index == index
            ]
            masked_px = 0
            if members:
                of_class = union(members, self.image_size)
                masked_px = int(np.count_nonzero(of_class))
                covered |= of_class
            per_class[name] = ClassCoverage(masked_px, percent(masked_px, total_px))
        masked_px = int(np.count_nonzero(covered))
        masked_percent = percent(masked_px, total_px)
        return Coverage(
            masked_px=masked_px,
            unmasked_px=total_px - masked_px,
            total_px=total_px,
            masked_percent=masked_percent,
            unmasked_percent=round(100.0 - masked_percent, 4),
            per_class=per_class,
        )

    def to_coco(
        self, image_id: int, *, category_ids: Sequence[int] | None = None
    ) -> list[CocoResult]:
        """The instances as entries of a COCO results file, which ``COCO.loadRes`` reads.

        Args:
            image_id: The photo's number in the COCO file that the results belong to.
            category_ids: The number of each of ``class_names`` there; 1, 2, … by default.
        """
        ids = range(1, len(self.class_names) + 1) if category_ids is None else category_ids
        if len(ids) != len(self.class_names):
            raise ValueError(f"{len(ids)} category_ids for {len(self.class_names)} class_names")
        return [
            {
                "image_id": image_id,
                "category_id": ids[class_index],
                "bbox": box_xywh,
                "score": score,
                "segmentation": rle,
            }
            for class_index, box_xywh, score, rle in zip(
                self.class_indices.tolist(),
                xyxy_to_xywh(self.boxes_xyxy).tolist(),
                self.scores.tolist(),
                self.rles(),
                strict=True,
            )
        ]

    def to_supervision(self) -> Detections:
        """The instances as ``supervision.Detections``, with masks and names of classes.

        Raises:
            MissingExtraError: The package ``supervision`` is not installed.
        """
        try:
            from supervision import Detections  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise MissingExtraError(
                "to_supervision needs the package supervision, which the base install leaves out.",
                hint="Install it with: pip install 'maskserve[supervision]'",
            ) from None
        return Detections(
            xyxy=self.boxes_xyxy,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.class_indices,
            data={"class_name": np.array(self.class_names)[self.class_indices]},
        )
