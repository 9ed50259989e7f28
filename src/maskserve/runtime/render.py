"""Drawing instances into a photo."""

from __future__ import annotations

import math
import unicodedata
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from maskserve.core.categories import nearest_name
from maskserve.core.errors import ParameterError
from maskserve.core.masks import MaskCrop, union
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.contours import Ring, crop_to_outlines
from maskserve.runtime.style import STYLES, Style

__all__ = ["PALETTE", "STYLES", "Style", "colour_of", "draw"]

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""RGB colours of the instances in turn, which people with any colour vision tell apart.

Okabe and Ito, Color Universal Design (2008), without its black.
"""

_TINT = 0.45
_UNSEEN_PX = 0.75
_CASING = (20, 20, 20)
_MIN_FONT_PX = 11


def colour_of(instance: int) -> Colour:
    """RGB colour of an instance by its position, 0-based; repeats after the palette's end."""
    return PALETTE[instance % len(PALETTE)]


def draw(
    image: Image, instances: Instances, *, style: Style = "overlay", labels: bool = True
) -> Image:
    """Draw instances into a copy of a photo.

    Args:
        image: uint8, shape (H, W, 3), RGB; not modified.
        instances: What was found in it.
        style: ``overlay`` tints the masks and adds outlines and labels, ``outline`` leaves the
            tint away, ``splash`` keeps the colour inside the masks only, ``mask`` is white on
            black.
        labels: Whether ``overlay`` and ``outline`` name each instance and its score.

    Returns:
        uint8, shape (H, W, 3), RGB.

    Raises:
        ParameterError: There is no such style.
    """
    if style not in STYLES:
        nearest = nearest_name(style, STYLES)
        guess = f"Did you mean “{nearest}”? " if nearest else ""
        raise ParameterError(
            f"There is no style “{style}”.", hint=f"{guess}Known: {', '.join(STYLES)}."
        )
    if style == "mask":
        covered = union(instances.crops, instances.image_size)
        return np.repeat(covered[..., None].astype(np.uint8) * np.uint8(255), 3, axis=2)
    if style == "splash":
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        drawn = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8, copy=False)
        for crop in instances.crops:
            if crop.pixels.size:
                mask = crop.pixels.view(np.uint8)
                cv2.copyTo(image[crop.slices], mask, drawn[crop.slices])
        return drawn
    drawn = image.copy()
    weakest_first = range(len(instances) - 1, -1, -1)  # so that the best lies on top
    if style == "overlay":
        for i in weakest_first:
            _tint(drawn, instances.crops[i], colour_of(i))
    for i in weakest_first:
        _outline(drawn, instances.crops[i], colour_of(i))
    if labels:
        _label_all(drawn, instances)
    return drawn


def _tint(drawn: Image, crop: MaskCrop, colour: Colour) -> None:
    if not crop.pixels.size:
        return
    region = drawn[crop.slices]
    cv2.copyTo(cv2.LUT(region, _tint_table(colour)), crop.pixels.view(np.uint8), region)


@cache
def _tint_table(colour: Colour) -> npt.NDArray[np.uint8]:
    """What each value of each channel becomes: uint8, shape (1, 256, 3)."""
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    tinted = cv2.addWeighted(values, 1 - _TINT, np.full_like(values, colour), _TINT, 0)
    return tinted.astype(np.uint8, copy=False)


def _outline(drawn: Image, crop: MaskCrop, colour: Colour) -> None:
    """A coloured line on a wider dark one, so that it shows on any background.

    An instance that such lines would fill gets a hairline instead.
    """
    width = max(round(_font_px(drawn) / 8), 2)
    lines = [(_CASING, width + max(width // 2, 1)), (colour, width)]
    if min(crop.pixels.shape) < 8 * width:
        lines = [(colour, 1)]
    # OpenCV takes vertices as integers, here in 1/16 px, and has pixel centres at integers.
    rings = [
        np.round((_fewer_vertices(ring) - 0.5) * 16).astype(np.int32)
        for ring in crop_to_outlines(crop)
    ]
    for line_colour, thickness in lines:
        cv2.polylines(drawn, rings, True, line_colour, thickness, cv2.LINE_AA, shift=4)


def _fewer_vertices(ring: Ring) -> Ring:
    """The ring without vertices that move it less than anyone sees, each of which takes time."""
    return cv2.approxPolyDP(ring.astype(np.float32), _UNSEEN_PX, True)[:, 0].astype(np.float64)


def _font_px(image: Image) -> int:
    """Size of the labels' letters, by which lines are scaled too; grows with the photo."""
    return max(_MIN_FONT_PX, round(0.02 * math.sqrt(image.shape[0] * image.shape[1])))


def _label_all(drawn: Image, instances: Instances) -> None:
    """A label above, below or in each instance, best first, where there is room for one.

    Room is where no mask and no other label lies, or within the instance's own box: in a crowd,
    labels that hide what they name help nobody.
    """
    masked = union(instances.crops, instances.image_size)
    labelled = np.zeros_like(masked)
    for i, (x0, y0, x1, y1) in enumerate(instances.boxes_xyxy.astype(np.int64).tolist()):
        name = instances.class_names[instances.class_indices[i]]
        label = _label(f"{name} {instances.scores[i]:.2f}", _font_px(drawn), colour_of(i))
        height, width = label.shape[:2]
        left = max(min((x0 + x1 - width) // 2, drawn.shape[1] - width), 0)
        for top in (y0 - height, y1, y0):
            place = (slice(top, top + height), slice(left, left + width))
            inside = top == y0 and width <= x1 - x0 and 2 * height <= y1 - y0
            if (
                top >= 0
                and masked[place].shape == label.shape[:2]
                and not labelled[place].any()
                and (inside or not masked[place].any())
            ):
                drawn[place] = label
                labelled[place] = True
                break


@lru_cache(maxsize=512)  # names and scores of two digits: most labels come again
def _label(text: str, font_px: int, colour: Colour) -> Image:
    """Text in black or white, whichever reads better, on the instance's colour."""
    text = _to_ascii(text)
    font = _font(font_px)
    pad = font_px // 4
    _, top, _, bottom = font.getbbox("bdgjpqy|")
    size = (round(font.getlength(text)) + 2 * pad, round(bottom - top) + 2 * pad)
    label = PillowImage.new("RGB", size, colour)
    red, green, blue = colour
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "white"
    ImageDraw.Draw(label).text((pad, pad - top), text, ink, font)
    return np.asarray(label)


def _to_ascii(text: str) -> str:
    """The letters without their accents: Pillow's own font has no others."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
