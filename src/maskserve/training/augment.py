"""Strong augmentation for tiny data sets: scale, crop, flip, colour, pasted instances.

Geometry is applied to the annotations' polygons, which are rasterised once, at the size that
the network sees; so masks stay as sharp as they were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import v2

from maskserve.core.manifest import Preprocess
from maskserve.core.masks import Mask, decode_rle, polygons_to_rle
from maskserve.core.predictor import Image
from maskserve.datasets import Annotation
from maskserve.runtime.preprocess import resize_image, resized_size
from maskserve.training.config import AugmentSettings

__all__ = [
    "Scene",
    "Window",
    "augment_scene",
    "draw_window",
    "paste_instances",
    "place_scene",
    "random_window",
    "tile_scenes",
    "turn_hue",
]

_MIN_VISIBLE = 0.15
"""An instance of which less than this share is left after cropping or pasting is dropped."""
_MIN_AREA_PX = 16
_WINDOWS_TRIED = 8


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A photo and its instances as the network is trained on them.

    Attributes:
        image: uint8, (H, W, 3), RGB.
        masks: bool, (N, H, W).
        class_indices: int64, (N,), 0-based.
    """

    image: Image
    masks: Mask
    class_indices: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """A square view of a resized photo.

    Attributes:
        size: (height, width) that the photo is resized to.
        top, left: Corner of the view in the resized photo; negative where the photo is smaller
            than the view and is surrounded by grey.
        side: Side of the view in pixels.
        flipped: Whether the view is mirrored left to right.
        turn_deg: By how much the photo is turned around the middle of the view, clockwise.
    """

    size: tuple[int, int]
    top: int
    left: int
    side: int
    flipped: bool
    turn_deg: float = 0.0

    def place(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """From the resized photo to the view (without the flip): x and y, (N, 2)."""
        angle, middle = np.deg2rad(self.turn_deg), self.side / 2
        rows = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        return (points - (self.left, self.top) - middle) @ np.array(rows) + middle

    def show(self, photo: npt.NDArray[np.uint8], **options: Any) -> npt.NDArray[np.uint8]:
        """The view (without the flip) of a resized photo or mask; options are OpenCV's."""
        origin, right, down = self.place(np.array([[0.0, 0], [1, 0], [0, 1]]))
        # To OpenCV the middle of the first pixel is the origin.
        first_pixel = self.place(np.array([[0.5, 0.5]]))[0] - 0.5
        matrix = np.stack([right - origin, down - origin, first_pixel], axis=1)
        shown = cv2.warpAffine(photo, matrix, (self.side, self.side), **options)
        return shown.astype(np.uint8, copy=False)


def random_window(
    photo_size: tuple[int, int],
    settings: AugmentSettings,
    preprocess: Preprocess,
    *,
    rng: np.random.Generator,
    zoom: float = 1.0,
) -> Window:
    """Draw scale, position, flip and turn for a photo of ``photo_size`` (height, width).

    ``zoom`` scales the view as a whole: at 0.5 it has half the side and shows as much.
    """
    low, high = np.log(settings.min_scale), np.log(settings.max_scale)
    scale = zoom * float(np.exp(rng.uniform(low, high)))
    height, width = resized_size(photo_size, preprocess)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    side = round(zoom * settings.crop_px)
    top, left = (
        int(rng.integers(min(0, length - side), max(0, length - side) + 1)) for length in size
    )
    flipped = bool(rng.random() < settings.flip)
    turn_deg = float(rng.uniform(-1, 1)) * settings.turn_deg if settings.turn_deg else 0.0
    return Window(size, top, left, side, flipped, turn_deg)


def draw_window(
    photo_size: tuple[int, int],
    annotations: Sequence[Annotation],
    settings: AugmentSettings,
    preprocess: Preprocess,
    *,
    rng: np.random.Generator,
    zoom: float = 1.0,
) -> Window:
    """The first of some random windows that cuts no instance down to a scrap.

    A scrap looks like any patch of one colour, and a network that learns to find scraps finds such
    patches. See ``min_shown`` in :class:`AugmentSettings`; if no window will do, the one with the
    fewest scraps is taken. Other arguments as of :func:`random_window`.
    """
    boxes = [_box(annotation, photo_size) for annotation in annotations if not annotation.is_crowd]

    def scraps(window: Window) -> int:
        shares = (_shown(box, window, photo_size) for box in boxes)
        return sum(0 < share < settings.min_shown for share in shares)

    draw = partial(random_window, photo_size, settings, preprocess, rng=rng, zoom=zoom)
    window = draw()
    for _ in range(_WINDOWS_TRIED - 1):
        if scraps(window) == 0:
            break
        window = min(window, draw(), key=scraps)
    return window


def _box(annotation: Annotation, photo_size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """x0, y0, x1, y1 in the photo."""
    if annotation.rle is not None:
        return annotation.box_xyxy(photo_size).astype(np.float64)
    points = np.concatenate(annotation.polygons)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _shown(box: npt.NDArray[np.float64], window: Window, photo_size: tuple[int, int]) -> float:
    """Share of a box in the photo that lies in the window, its turn left aside."""
    scale = np.array([window.size[1] / photo_size[1], window.size[0] / photo_size[0]])
    corner = np.array([window.left, window.top])
    low, high = box[:2] * scale - corner, box[2:] * scale - corner
    inside = np.clip(high, 0, window.side) - np.clip(low, 0, window.side)
    return float(np.prod(inside / np.maximum(high - low, 1e-9)))


def place_scene(
    image: Image,
    annotations: tuple[Annotation, ...],
    window: Window,
    *,
    fill: tuple[int, int, int],
) -> Scene:
    """Look at a photo through a window.

    Args:
        image: The whole photo.
        annotations: Crowd regions are painted over: they are neither instances nor background.
        window: What to look at.
        fill: Colour around the photo; the mean that normalisation subtracts is neutral.
    """
    side = window.side
    canvas = window.show(resize_image(image, window.size), borderValue=fill)
    masks, classes = [], []
    crowd = np.zeros((side, side), dtype=np.bool_)
    for annotation in annotations:
        mask, whole_px = _place_annotation(annotation, image.shape[:2], window)
        if annotation.is_crowd:
            crowd |= mask
            continue
        visible_px = np.count_nonzero(mask)
        if visible_px >= max(_MIN_AREA_PX, _MIN_VISIBLE * whole_px):
            masks.append(mask)
            classes.append(annotation.class_index)
    stacked = np.stack(masks) if masks else np.zeros((0, side, side), dtype=np.bool_)
    canvas[crowd & ~stacked.any(axis=0)] = fill
    if window.flipped:
        canvas, stacked = canvas[:, ::-1], stacked[:, :, ::-1]
    return Scene(
        np.ascontiguousarray(canvas),
        np.ascontiguousarray(stacked),
        np.array(classes, dtype=np.int64),
    )


def _place_annotation(
    annotation: Annotation, photo_size: tuple[int, int], window: Window
) -> tuple[Mask, float]:
    """Its mask in the view (without the flip), and its area at the view's scale in pixels."""
    scale = np.array([window.size[1] / photo_size[1], window.size[0] / photo_size[0]])
    view = (window.side, window.side)
    if annotation.rle is not None:
        whole = decode_rle(annotation.rle)
        resized = cv2.resize(
            whole.view(np.uint8), window.size[::-1], interpolation=cv2.INTER_NEAREST
        )
        mask = window.show(resized.astype(np.uint8, copy=False), flags=cv2.INTER_NEAREST)
        return mask.astype(np.bool_), float(np.count_nonzero(resized))
    polygons = [window.place(polygon * scale) for polygon in annotation.polygons]
    whole_px = sum(abs(_shoelace(polygon)) for polygon in polygons)
    inside = [polygon for polygon in polygons if _touches(polygon, window.side)]
    if not inside:
        return np.zeros(view, dtype=np.bool_), whole_px
    return decode_rle(polygons_to_rle(inside, view)), whole_px


def _shoelace(polygon: npt.NDArray[np.float64]) -> float:
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _touches(polygon: npt.NDArray[np.float64], side: int) -> bool:
    return bool((polygon.max(axis=0) > 0).all() and (polygon.min(axis=0) < side).all())


def paste_instances(target: Scene, source: Scene, *, rng: np.random.Generator) -> Scene:
    """Copy a random half of ``source``'s instances over ``target``, edges slightly softened.

    Both scenes have the same size. What a pasted instance hides is cut from the masks below;
    instances that are hardly visible any more are dropped.

    Source: Ghiasi et al., Simple Copy-Paste, https://arxiv.org/abs/2012.07177.
    """
    chosen = rng.random(len(source.masks)) < 0.5
    if not chosen.any():
        return target
    pasted = source.masks[chosen]
    over: Mask = np.logical_or.reduce(pasted, axis=0)
    softness_px = float(rng.uniform(0.4, 1.2))
    alpha = cv2.GaussianBlur(over.astype(np.float32), (0, 0), softness_px)[..., None]
    image = (source.image * alpha + target.image * (1 - alpha) + 0.5).astype(np.uint8)
    before = target.masks.sum(axis=(1, 2))
    below = target.masks & ~over
    after = below.sum(axis=(1, 2))
    kept = after >= np.maximum(_MIN_AREA_PX, _MIN_VISIBLE * before)
    return Scene(
        image,
        np.concatenate([below[kept], pasted]),
        np.concatenate([target.class_indices[kept], source.class_indices[chosen]]),
    )


def tile_scenes(scenes: Sequence[Scene]) -> Scene:
    """Four scenes of one size as the quarters of one of twice the side (Bochkovskiy, 2004.10934).

    A small photo would leave most of the view grey; four of them fill it.
    """
    rows = [
        np.concatenate([left.image, right.image], axis=1)
        for left, right in (scenes[:2], scenes[2:])
    ]
    side = scenes[0].image.shape[0]
    masks = []
    for scene, (top, left) in zip(scenes, product((0, side), repeat=2), strict=True):
        placed = np.zeros((len(scene.masks), 2 * side, 2 * side), dtype=np.bool_)
        placed[:, top : top + side, left : left + side] = scene.masks
        masks.append(placed)
    return Scene(
        np.concatenate(rows, axis=0),
        np.concatenate(masks),
        np.concatenate([scene.class_indices for scene in scenes]),
    )


def turn_hue(scene: Scene, strength: float, *, rng: np.random.Generator) -> Scene:
    """Turn all colours by up to ``strength`` of the colour circle either way, 0..0.5."""
    if strength == 0:
        return scene
    turned = cv2.cvtColor(scene.image, cv2.COLOR_RGB2HSV_FULL)
    turned[..., 0] += np.uint8(round(rng.uniform(-strength, strength) * 255) % 256)  # wraps round
    image: Image = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL).astype(np.uint8, copy=False)
    return replace(scene, image=image)


def _turn(scene: Scene, right_angles: int) -> Scene:
    return Scene(
        np.ascontiguousarray(np.rot90(scene.image, right_angles)),
        np.ascontiguousarray(np.rot90(scene.masks, right_angles, axes=(1, 2))),
        scene.class_indices,
    )


def augment_scene(scene: Scene, settings: AugmentSettings, *, rng: np.random.Generator) -> Scene:
    """Turn, if asked to; change colours; sometimes blur, or drop the colour altogether."""
    if settings.quarter_turns:
        scene = _turn(scene, int(rng.integers(4)))
    strength = settings.colour
    if strength == 0:
        return scene
    transform = v2.Compose(
        [
            v2.ColorJitter(strength, strength, strength, strength / 8),
            v2.RandomGrayscale(0.05),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], 0.15),
        ]
    )
    # torchvision draws from torch's global generator; ours is seeded by the sample.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        changed = transform(torch.from_numpy(scene.image).permute(2, 0, 1))
    return Scene(changed.permute(1, 2, 0).contiguous().numpy(), scene.masks, scene.class_indices)
