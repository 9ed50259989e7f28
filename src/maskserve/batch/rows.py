"""The two tables: one row a photo, one row an instance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from maskserve.core.boxes import xyxy_to_xywh
from maskserve.core.errors import MaskserveError
from maskserve.core.manifest import Manifest
from maskserve.core.types import Instances, percent

__all__ = [
    "INSTANCES",
    "PHOTOS",
    "ListedPhoto",
    "Row",
    "error_row",
    "instance_rows",
    "photo_row",
]

Row = dict[str, Any]
"""Values by column; a column that is left out is null."""


@dataclass(frozen=True, slots=True)
class ListedPhoto:
    """A photo of a run.

    Attributes:
        index: Its place in the run, 0-based.
        address: A path or a URL. A path whose bytes are no UTF-8 has surrogates in it, as Python
            gives it.
        size: Bytes, as they were listed.
    """

    index: int
    address: str
    size: int

    @property
    def name(self) -> str:
        """The address as text: bytes that are no UTF-8 are written like ``\\udce9``."""
        return self.address.encode("utf-8", "backslashreplace").decode()


PHOTOS = pa.schema(
    [
        pa.field("photo_index", pa.int64(), nullable=False),
        pa.field("photo", pa.string(), nullable=False),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("instances", pa.int32()),
        ("masked_px", pa.int64()),
        ("unmasked_px", pa.int64()),
        ("masked_percent", pa.float64()),
        ("unmasked_percent", pa.float64()),
        ("masked_px_by_class", pa.map_(pa.string(), pa.int64())),
        ("picture", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)
"""Of a photo that could not be used, the last two say why, and what is not known is null."""

INSTANCES = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("photo_index", pa.int64()),
            ("photo", pa.string()),
            ("instance", pa.int32()),
            ("class", pa.string()),
            ("class_index", pa.int32()),
            ("score", pa.float32()),
            ("box_x", pa.float32()),
            ("box_y", pa.float32()),
            ("box_w", pa.float32()),
            ("box_h", pa.float32()),
            ("area_px", pa.int64()),
            ("area_percent", pa.float64()),
            ("rle_height", pa.int32()),
            ("rle_width", pa.int32()),
            ("rle_counts", pa.string()),
        )
    ]
)


def photo_row(
    photo: ListedPhoto,
    content: bytes,
    instances: Instances,
    *,
    manifest: Manifest,
    picture: str | None = None,
) -> Row:
    """The row of a photo in :data:`PHOTOS`.

    Args:
        photo: Where it lies.
        content: Its file.
        instances: What was found in it.
        manifest: Of the model that found it.
        picture: Where the drawn photo lies, in the run's folder.
    """
    height, width = instances.image_size
    coverage = instances.coverage()
    return {
        **_identity(photo, content, manifest),
        "width": width,
        "height": height,
        "instances": len(instances),
        "masked_px": coverage.masked_px,
        "unmasked_px": coverage.unmasked_px,
        "masked_percent": coverage.masked_percent,
        "unmasked_percent": coverage.unmasked_percent,
        "masked_px_by_class": [
            (name, of_class.masked_px) for name, of_class in coverage.per_class.items()
        ],
        "picture": picture,
    }


def error_row(
    photo: ListedPhoto, content: bytes | None, error: MaskserveError, *, manifest: Manifest
) -> Row:
    """The row of a photo that could not be used; ``content`` is None if it could not be read."""
    return {
        **_identity(photo, content, manifest),
        "error_code": error.code,
        "error_message": error.message,
    }


def instance_rows(photo: ListedPhoto, instances: Instances) -> list[Row]:
    """The rows of a photo's instances in :data:`INSTANCES`, best score first."""
    height, width = instances.image_size
    return [
        {
            "photo_index": photo.index,
            "photo": photo.name,
            "instance": instance,
            "class": instances.class_names[class_index],
            "class_index": class_index,
            "score": score,
            "box_x": x,
            "box_y": y,
            "box_w": w,
            "box_h": h,
            "area_px": area_px,
            "area_percent": percent(area_px, height * width),
            "rle_height": height,
            "rle_width": width,
            "rle_counts": rle["counts"],
        }
        for instance, (class_index, score, (x, y, w, h), area_px, rle) in enumerate(
            zip(
                instances.class_indices.tolist(),
                instances.scores.tolist(),
                xyxy_to_xywh(instances.boxes_xyxy).tolist(),
                instances.areas_px.tolist(),
                instances.rles(),
                strict=True,
            )
        )
    ]


def _identity(photo: ListedPhoto, content: bytes | None, manifest: Manifest) -> Row:
    return {
        "photo_index": photo.index,
        "photo": photo.name,
        "bytes": None if content is None else len(content),
        "sha256": None if content is None else hashlib.sha256(content).hexdigest(),
        "model": manifest.name,
        "model_version": manifest.version,
    }
