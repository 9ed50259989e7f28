"""Pictures whose masks are known because they are computed: for tests and examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image as PillowImage

from maskserve.core.errors import OutputError
from maskserve.core.masks import Mask
from maskserve.core.predictor import Image
from maskserve.datasets.balloon_scene import render_balloons
from maskserve.datasets.types import Polygon
from maskserve.datasets.via import VIA_FILE_NAME

__all__ = ["mask_outline", "render_balloons", "render_shapes", "write_via_dataset"]

_PLACES_TRIED = 200


def render_shapes(*, size: tuple[int, int], count: int, seed: int) -> tuple[Image, list[Mask]]:
    """Bright circles and rectangles that touch neither one another nor the border.

    A pixel belongs to a shape if its centre does. That is the whole truth: edges are not
    softened, and a shape's colour differs from the dark, noisy ground in every channel.

    Args:
        size: (height, width).
        count: Shapes, as far as they find room.
        seed: The same seed gives the same picture.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    image = rng.integers(20, 60, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    taken = np.zeros(size, dtype=np.bool_)
    masks: list[Mask] = []
    for _ in range(_PLACES_TRIED):
        if len(masks) == count:
            break
        rx, ry = rng.uniform(0.06, 0.18, 2) * min(size)
        is_circle = rng.random() < 0.5
        if is_circle:
            ry = rx
        cx, cy = rng.uniform(rx + 2, width - rx - 2), rng.uniform(ry + 2, height - ry - 2)
        near = (np.abs(x - cx) < rx + 2) & (np.abs(y - cy) < ry + 2)
        if taken[near].any():
            continue
        taken |= near
        if is_circle:
            mask = (x - cx) ** 2 + (y - cy) ** 2 < rx**2
        else:
            mask = (np.abs(x - cx) < rx) & (np.abs(y - cy) < ry)
        image[mask] = rng.integers(120, 256, 3, dtype=np.uint8)
        masks.append(mask)
    return image, masks


_RENDERERS: dict[str, Callable[..., tuple[Image, list[Mask]]]] = {
    "shapes": render_shapes,
    "balloons": render_balloons,
}


def write_via_dataset(
    root: Path,
    *,
    content: Literal["shapes", "balloons"] = "shapes",
    train: int = 4,
    val: int = 2,
    size: tuple[int, int] = (96, 128),
    instances_per_photo: int = 3,
    seed: int = 0,
) -> None:
    """Write a small data set as VIA does: ``train/`` and ``val/``, with one class.

    Photos are PNG, hence exactly as rendered. The outlines that are written follow the masks to
    a fraction of a pixel.

    Args:
        root: A folder that is not there yet, or empty; its name becomes the name of the class.
        content: What :func:`render_shapes` or :func:`render_balloons` draws.
        train: Photos in ``train/``.
        val: Photos in ``val/``.
        size: (height, width) of every photo.
        instances_per_photo: Instances drawn in each photo.
        seed: The same seed gives the same files.

    Raises:
        OutputError: ``root`` holds something, or cannot be written.
    """
    if root.exists() and any(root.iterdir()):
        raise OutputError(f"{root} is not empty.", hint="Name a folder that does not exist yet.")
    render = _RENDERERS[content]
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
            for split, first, photos in (("train", 0, train), ("val", train, val)):
                folder = Path(temporary) / "data" / split
                folder.mkdir(parents=True)
                entries = {}
                for number in range(first, first + photos):
                    image, masks = render(
                        size=size, count=instances_per_photo, seed=1000 * seed + number
                    )
                    path = folder / f"{content}_{number:03d}.png"
                    PillowImage.fromarray(image).save(path)
                    entries[path.name] = _via_entry(path, masks)
                (folder / VIA_FILE_NAME).write_text(json.dumps(entries), encoding="utf-8")
            (Path(temporary) / "data").replace(root)
    except OSError as error:
        raise OutputError(f"{root} cannot be written: {error.strerror}.") from error


def _via_entry(path: Path, masks: Sequence[Mask]) -> dict[str, Any]:
    """A photo in VIA 1.x's form."""
    outlines = [mask_outline(mask) for mask in masks]
    return {
        "fileref": "",
        "size": path.stat().st_size,
        "filename": path.name,
        "base64_img_data": "",
        "file_attributes": {},
        "regions": {
            str(number): {
                "shape_attributes": {
                    "name": "polygon",
                    "all_points_x": outline[:, 0].tolist(),
                    "all_points_y": outline[:, 1].tolist(),
                },
                "region_attributes": {},
            }
            for number, outline in enumerate(outlines)
        },
    }


def mask_outline(mask: Mask) -> Polygon:
    """The outline of a mask's largest connected part, of which there must be one.

    OpenCV traces the centres of the outermost pixels. On a mask that is enlarged fourfold these
    lie within an eighth of a pixel of the true border.
    """
    large = np.repeat(np.repeat(mask.astype(np.uint8), 4, axis=0), 4, axis=1)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(contours, key=cv2.contourArea)
    return (largest.reshape(-1, 2).astype(np.float64) + 0.5) / 4
