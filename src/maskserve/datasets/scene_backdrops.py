"""Places where balloons are found, computed: skies, parks, streets, rooms, walls, nights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from maskserve.datasets.rendering import GAMMA, Floats, blend, blur, cloud_noise, rgb
from maskserve.datasets.scene_bodies import Light

__all__ = ["Backdrop", "linear", "paint_backdrop", "random_colour"]


@dataclass(frozen=True, slots=True, eq=False)
class Backdrop:
    """What is behind everything.

    Attributes:
        canvas: Linear light: float32, shape (H, W, 3).
        light: How things that stand before it are lit.
        ground: Row from which things can stand on a ground; None where there is no ground.
        is_indoors: Whether a ceiling is above.
    """

    canvas: Floats
    light: Light
    ground: int | None
    is_indoors: bool


def linear(red: float, green: float, blue: float) -> Floats:
    """Linear light of an sRGB colour in 0..255."""
    return (rgb(red, green, blue) / 255) ** np.float32(GAMMA)


def random_colour(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Floats:
    """Linear light of a colour of any hue, its saturation and value (HSV) in ranges in 0..1."""
    hsv = np.array(
        [[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], dtype=np.float32
    )
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] ** np.float32(GAMMA))


def paint_backdrop(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """A place of any kind; ``size`` is (height, width)."""
    kinds: tuple[tuple[Callable[[tuple[int, int], np.random.Generator], Backdrop], float], ...] = (
        (_open_sky, 0.13),
        (_outdoors, 0.27),
        (_room, 0.26),
        (_wall, 0.12),
        (_night, 0.10),
        (_out_of_focus, 0.12),
    )
    shares = np.array([share for _, share in kinds])
    paint = kinds[rng.choice(len(kinds), p=shares / shares.sum())][0]
    return paint(size, rng)


def _unit(x: float, y: float, z: float) -> Floats:
    return rgb(x, y, z) / np.float32(np.sqrt(x * x + y * y + z * z))


def _mirror(below: Floats, horizon: Floats, above: Floats) -> Floats:
    """What a mirror shows between straight down and straight up, softly."""
    at = np.linspace(0, 1, 256)
    stops = np.stack((below, horizon * 0.5, horizon, above))
    channels = [np.interp(at, (0.2, 0.48, 0.56, 1.0), stops[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _daylight(rng: np.random.Generator, zenith: Floats, horizon: Floats, ground: Floats) -> Light:
    is_sunny = rng.random() < 0.6
    warmth = rng.uniform(0.7, 1.0)
    sun = rgb(1.0, 0.65 + 0.35 * warmth, 0.35 + 0.6 * warmth) * (
        rng.uniform(0.8, 1.3) if is_sunny else rng.uniform(0.1, 0.3)
    )
    sky = 0.5 * (zenith + horizon) * (1.0 if is_sunny else 1.3)
    return Light(
        direction=_unit(rng.uniform(-1, 1), rng.uniform(-1, -0.3), rng.uniform(-0.2, 1)),
        direct=sun,
        above=sky,
        below=ground * 0.8,
        mirror=_mirror(ground, horizon, zenith),
        sharpness=float(rng.uniform(120, 400)) if is_sunny else 25.0,
    )


_SKIES = (
    # zenith and horizon, sRGB
    ((70, 130, 205), (185, 212, 238)),
    ((40, 100, 190), (150, 195, 235)),
    ((30, 80, 160), (90, 150, 215)),
    ((150, 165, 180), (215, 220, 225)),
    ((200, 205, 212), (240, 240, 240)),
    ((90, 100, 150), (250, 190, 130)),
    ((60, 60, 110), (225, 120, 90)),
    ((120, 175, 215), (225, 235, 240)),
)


def _paint_sky(size: tuple[int, int], rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """A sky, and the colours at its zenith and horizon."""
    zenith, horizon = (linear(*colour) for colour in _SKIES[rng.integers(len(_SKIES))])
    rows = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
    depth = np.broadcast_to(rows ** rng.uniform(0.6, 1.6), size)
    canvas = blend(zenith, horizon, depth)
    if rng.random() < 0.7:
        short = min(size)
        noise = cloud_noise(size, short * rng.uniform(0.2, 0.7), rng, stretch=rng.uniform(1.2, 3))
        clouds = np.clip((noise - rng.uniform(0.3, 0.7)) * rng.uniform(1.5, 5), 0, 1)
        white = np.minimum(1.3 * horizon + 0.15, 1.0) * rng.uniform(0.8, 1.05)
        canvas = blend(canvas, white * (0.75 + 0.25 * noise)[..., None], 0.9 * clouds)
    return canvas, zenith, horizon


def _open_sky(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    canvas, zenith, horizon = _paint_sky(size, rng)
    light = _daylight(rng, zenith, horizon, horizon * 0.3)
    return Backdrop(canvas, light, None, False)


_GROUNDS = (
    # near and far, sRGB
    ((70, 105, 40), (110, 140, 70)),
    ((90, 120, 45), (150, 165, 90)),
    ((190, 170, 135), (215, 200, 170)),
    ((90, 90, 92), (130, 130, 130)),
    ((150, 148, 142), (180, 178, 172)),
    ((225, 228, 235), (240, 242, 246)),
    ((110, 85, 60), (150, 125, 95)),
)


def _outdoors(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """A ground, and trees, houses or hills under a sky."""
    height = size[0]
    canvas, zenith, horizon_colour = _paint_sky(size, rng)
    horizon = round(height * rng.uniform(0.25, 0.85))
    near, far = (linear(*colour) for colour in _GROUNDS[rng.integers(len(_GROUNDS))])
    _pave(canvas, horizon, near, far, rng)
    if rng.random() < 0.45:
        _build_houses(canvas, horizon, rng, lit=False)
    if rng.random() < 0.7:
        _plant_trees(canvas, horizon, rng)
    softness = rng.choice([0.0, 0.004, 0.012]) * min(size)
    if softness:
        canvas[: horizon + round(3 * softness)] = blur(
            canvas[: horizon + round(3 * softness)], softness
        )
    light = _daylight(rng, zenith, horizon_colour, 0.5 * (near + far))
    return Backdrop(canvas, light, horizon, False)


def _pave(
    canvas: Floats, horizon: int, near: Floats, far: Floats, rng: np.random.Generator
) -> None:
    """A level ground from ``horizon`` down, its texture growing towards the viewer."""
    height, width = canvas.shape[:2]
    depth = height - horizon
    if depth < 2:
        return
    rows = np.linspace(0, 1, depth, dtype=np.float32)[:, None]
    texture = cloud_noise((256, 512), 16, rng, stretch=rng.uniform(0.7, 2.0))
    texture = np.vstack((texture, texture[::-1]))  # mirrored, so that it repeats without a seam
    texture = np.hstack((texture, texture[:, ::-1]))
    distance = 1 / (rows + 0.08)
    columns = (np.arange(width, dtype=np.float32)[None] / width - 0.5) * distance * 120 + 256
    lines = np.broadcast_to(distance * 60, columns.shape)
    grain = cv2.remap(
        texture,
        np.mod(columns, 1023).astype(np.float32),
        np.mod(lines, 511).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    blades = blur(rng.random((depth, width), dtype=np.float32), 0.6, 1.8) - 0.5
    contrast = rng.uniform(0.2, 0.9)
    tone = 1 + contrast * (np.asarray(grain) - 0.5) + 1.6 * contrast * blades * rows
    canvas[horizon:] = blend(far, near, np.broadcast_to(rows, (depth, width))) * tone[..., None]


def _plant_trees(canvas: Floats, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    short = min(height, width)
    tops = np.zeros((height, width), dtype=np.float32)
    leaves = np.zeros_like(canvas)
    tint = linear(*rng.choice([(60, 90, 35), (40, 70, 30), (120, 110, 50), (90, 120, 60)]))
    crowns = rng.uniform((-0.05, 0.02), (1.05, 0.4), (rng.integers(3, 12), 2))
    for across, rise in crowns:
        # A crown is many clumps of leaves, the lit ones above.
        tall = rise * height
        for _ in range(45):
            up = rng.uniform(0, 1)
            spread = 0.45 * tall * np.sqrt(1 - (2 * up - 1) ** 2) + 0.02 * short
            spot = (
                round(across * width + rng.normal(0, 0.6) * spread),
                round(horizon - up * tall),
            )
            tone = tint * (0.35 + 0.9 * up) * rng.uniform(0.5, 1.5)
            radius = round(max(0.09 * tall * rng.uniform(0.4, 1.2), 2))
            cv2.circle(leaves, spot, radius, tone.tolist(), -1)
            cv2.circle(tops, spot, radius, 1.0, -1)
    hedge = slice(horizon - round(rng.uniform(0, 0.06) * short), horizon + 1)
    tops[hedge] = 1
    leaves[hedge] = np.where(leaves[hedge] > 0, leaves[hedge], tint * 0.6)
    fine = cloud_noise((height, width), short * 0.025, rng, stretch=1.0)
    leaves *= (0.3 + 1.4 * fine)[..., None]
    rim = blur(tops, short * 0.008)
    leaves = blur(leaves, short * 0.003) / np.maximum(blur(tops, short * 0.003), 0.05)[..., None]
    edge = np.clip((rim + 0.9 * (fine - 0.5) - 0.3) * 5, 0, 1) * (rim > 0.05)
    edge[horizon + short // 40 :] = 0
    canvas[:] = blend(canvas, leaves, edge)


def _build_houses(canvas: Floats, horizon: int, rng: np.random.Generator, *, lit: bool) -> None:
    """Fronts with windows, side by side along the horizon."""
    height, width = canvas.shape[:2]
    left = -round(width * rng.uniform(0, 0.2))
    while left < width:
        right = left + round(width * rng.uniform(0.12, 0.5))
        top = horizon - round(height * rng.uniform(0.1, 0.8))
        wall = random_colour(rng, saturation=(0.03, 0.35), value=(0.35, 0.85))
        if lit:
            wall = wall * 0.06
        if rng.random() < 0.85:
            cv2.rectangle(canvas, (left, top), (right, horizon), wall.tolist(), -1)
            pitch = max(round(height * rng.uniform(0.05, 0.12)), 6)
            pane = round(pitch * rng.uniform(0.4, 0.65))
            dark = linear(*rng.choice([(40, 50, 60), (90, 105, 120), (25, 25, 28)]))
            for y in range(top + pitch // 3, horizon - pane, pitch):
                for x in range(left + pitch // 3, right - pane, pitch):
                    glow = linear(255, 215, 140) * rng.uniform(0.3, 1.0)
                    colour = glow if lit and rng.random() < 0.35 else dark * (0.1 if lit else 1)
                    cv2.rectangle(canvas, (x, y), (x + pane, y + pane), colour.tolist(), -1)
        left = right + round(width * rng.uniform(0, 0.1))


def _lamp_light(rng: np.random.Generator, walls: Floats, floor: Floats) -> Light:
    """Inside: a lamp or a camera's flash, light from the walls, and windows to mirror."""
    warm = rgb(1.0, rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0))
    is_flash = rng.random() < 0.3
    direction = (
        _unit(rng.uniform(-0.1, 0.1), rng.uniform(-0.15, 0), 1)
        if is_flash
        else _unit(rng.uniform(-1, 1), rng.uniform(-1, -0.2), rng.uniform(0.1, 1))
    )
    windows = tuple(
        (
            float(rng.uniform(-0.6, 0.6)),
            float(rng.uniform(-0.75, -0.1)),
            float(rng.uniform(0.04, 0.18)),
            float(rng.uniform(0.04, 0.2)),
            float(rng.uniform(2, 14)),
        )
        for _ in range(rng.integers(0, 4))
    )
    bulb_radius, bulb_strength = rng.uniform((0.03, 3), (0.12, 14))
    bulbs = tuple(
        (*rng.uniform((-0.95, -0.95), (0.95, 0.7)).tolist(), bulb_radius, bulb_strength)
        for _ in range(rng.integers(2, 9) if rng.random() < 0.3 else 0)
    )
    strength = rng.uniform(0.35, 1.0)
    return Light(
        direction=direction,
        direct=warm * strength,
        above=(0.35 + 0.4 * walls) * warm * rng.uniform(0.7, 1.3),
        below=floor * 0.5 + 0.05,
        mirror=_mirror(floor * 0.6, walls * 0.7, 0.5 + 0.3 * walls),
        windows=windows,
        bulbs=bulbs,
        sharpness=float(rng.uniform(60, 500)),
    )


def _room(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """Two walls and a floor, with pictures, windows, doors, furniture and garlands."""
    height, width = size
    wall = random_colour(rng, saturation=(0.0, 0.45), value=(0.35, 0.95))
    floor_colour = random_colour(rng, saturation=(0.1, 0.5), value=(0.2, 0.7))
    canvas = np.empty((height, width, 3), dtype=np.float32)
    canvas[:] = wall
    floor = round(height * rng.uniform(0.6, 1.05))
    corner = round(width * rng.uniform(-0.3, 1.3))
    canvas[:, : max(corner, 0)] *= np.float32(rng.uniform(0.6, 0.9))
    if rng.random() < 0.3:  # wallpaper
        _hang_paper(canvas, rng)
    floor = min(floor, height)
    if floor < height:
        _lay_boards(canvas, floor, floor_colour, rng)
    for _ in range(rng.integers(0, 4)):
        _hang_picture(canvas, floor, rng)
    if rng.random() < 0.4:
        _open_window(canvas, floor, rng)
    for _ in range(rng.integers(0, 5)):
        _place_furniture(canvas, floor, rng)
    # A lamp's light falls off along the walls.
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    distance = np.hypot(x - np.float32(rng.uniform(0, 1)), y - np.float32(rng.uniform(-0.2, 0.5)))
    canvas *= (1.25 - rng.uniform(0.2, 0.8) * distance)[..., None].clip(0.1)
    softness = rng.choice([0.0, 0.003, 0.01, 0.02]) * min(size)
    if softness:
        canvas = blur(canvas, softness)
    light = _lamp_light(rng, wall, floor_colour)
    return Backdrop(canvas, light, floor if floor < 0.92 * height else None, True)


def _hang_paper(canvas: Floats, rng: np.random.Generator) -> None:
    """Dots or stripes in a second colour: flat, round and hot, yet no balloons."""
    height, width = canvas.shape[:2]
    colour = random_colour(rng, saturation=(0.2, 0.9), value=(0.4, 0.95)).tolist()
    pitch = max(round(min(height, width) * rng.uniform(0.06, 0.25)), 6)
    if rng.random() < 0.5:
        radius = round(pitch * rng.uniform(0.15, 0.38))
        for row, y in enumerate(range(0, height + pitch, pitch)):
            for x in range((row % 2) * pitch // 2, width + pitch, pitch):
                cv2.circle(canvas, (x, y), radius, colour, -1)
    else:
        for x in range(0, width, pitch):
            cv2.rectangle(canvas, (x, 0), (x + pitch // 3, height), colour, -1)


def _lay_boards(canvas: Floats, floor: int, colour: Floats, rng: np.random.Generator) -> None:
    """Boards or a carpet, in perspective."""
    height, width = canvas.shape[:2]
    canvas[floor:] = colour
    vanishing = np.array([width * rng.uniform(0.2, 0.8), floor - height * rng.uniform(0.2, 0.8)])
    if rng.random() < 0.6:
        at_bottom = np.arange(-2.0, 3.0, rng.uniform(0.06, 0.2)) * width
        for a, b in pairwise(at_bottom):
            corners = np.array([vanishing, (a, height), (b, height)])
            layer = canvas[floor:]
            shifted = np.round(corners - (0, floor)).astype(np.int32)
            tone = (colour * rng.uniform(0.7, 1.15)).tolist()
            cv2.fillConvexPoly(layer, shifted, tone)
    grain = cloud_noise((height - floor, width), 8, rng, stretch=6)
    canvas[floor:] *= (0.8 + 0.4 * grain)[..., None]


def _hang_picture(canvas: Floats, floor: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    w, h = (round(v * min(height, width)) for v in rng.uniform(0.06, 0.3, 2))
    x, y = round(rng.uniform(-0.1, 1) * width), round(rng.uniform(0, 0.8) * max(floor - h, 1))
    frame = random_colour(rng, saturation=(0.0, 0.6), value=(0.05, 0.7)).tolist()
    cv2.rectangle(canvas, (x, y), (x + w, y + h), frame, -1)
    rim = max(w // 12, 1)
    inner = (
        slice(max(y + rim, 0), max(y + h - rim, 0)),
        slice(max(x + rim, 0), max(x + w - rim, 0)),
    )
    area = canvas[inner]
    if area.size == 0:
        return
    few = rng.uniform(0, 0.7, (*rng.integers(2, 6, 2), 3)).astype(np.float32)
    area[:] = np.asarray(cv2.resize(few, area.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    if rng.random() < 0.4:  # a flat disc, as on posters
        colour = random_colour(rng, saturation=(0.6, 1), value=(0.5, 1)).tolist()
        centre = (x + w // 2, y + h // 2)
        cv2.circle(canvas, centre, round(0.3 * min(w, h)), colour, -1)


def _part(canvas: Floats, left: int, top: int, right: int, bottom: int) -> Floats:
    """A view of a rectangle, as far as it lies inside."""
    left, top, right, bottom = (max(v, 0) for v in (left, top, right, bottom))
    return canvas[top:bottom, left:right]


def _open_window(canvas: Floats, floor: int, rng: np.random.Generator) -> None:
    """Bright panes with bars, and a blurred outside."""
    width = canvas.shape[1]
    w, h = round(width * rng.uniform(0.15, 0.5)), round(floor * rng.uniform(0.4, 0.9))
    x, y = round(rng.uniform(-0.2, 0.9) * width), round(floor * rng.uniform(-0.1, 0.2))
    area = _part(canvas, x, y, x + w, y + h)
    if area.size == 0:
        return
    outside = rng.uniform(0.2, 1.3, (6, 6, 1)) * rng.uniform(0.4, 1.0, (6, 6, 3))
    outside[3:] *= (0.4, 0.8, 0.25)
    area[:] = np.asarray(
        cv2.resize(outside.astype(np.float32), area.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    ).clip(0)
    bar = max(width // 90, 2)
    colour = (linear(235, 235, 230) * rng.uniform(0.1, 0.9)).tolist()
    cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, bar)
    cv2.line(canvas, (x + w // 2, y), (x + w // 2, y + h), colour, bar)
    cv2.line(canvas, (x, y + h // 2), (x + w, y + h // 2), colour, bar)


def _place_furniture(canvas: Floats, floor: int, rng: np.random.Generator) -> None:
    """A cupboard, a shelf with books, a table or a sofa: boxes with a lit and a dim side."""
    height, width = canvas.shape[:2]
    w, h = round(width * rng.uniform(0.08, 0.4)), round(height * rng.uniform(0.1, 0.6))
    x = round(rng.uniform(-0.15, 0.95) * width)
    bottom = min(floor + round(height * rng.uniform(0, 0.15)), height + h // 2)
    top = bottom - h
    colour = random_colour(rng, saturation=(0.0, 0.7), value=(0.1, 0.8))
    cv2.rectangle(canvas, (x, top), (x + w, bottom), colour.tolist(), -1)
    depth = round(0.15 * w)
    rise = depth // 3
    right = x + w
    side = [
        [right, top],
        [right + depth, top - rise],
        [right + depth, bottom - rise],
        [right, bottom],
    ]
    lid = [[x, top], [x + depth, top - rise], [right + depth, top - rise], [right, top]]
    cv2.fillConvexPoly(canvas, np.array(side, np.int32), (colour * 0.45).tolist())
    cv2.fillConvexPoly(canvas, np.array(lid, np.int32), (colour * 1.4).tolist())
    shelves = rng.integers(1, 5)
    if rng.random() < 0.5:
        for shelf in range(shelves):
            y0, y1 = top + shelf * h // shelves + 2, top + (shelf + 1) * h // shelves - 2
            cv2.rectangle(canvas, (x + 2, y0), (x + w - 2, y1), (colour * 0.3).tolist(), -1)
            book = x + 3
            while book < x + w - 6 and rng.random() < 0.96:
                thick = int(rng.integers(2, max(w // 8, 4)))
                tall = y0 + round((y1 - y0) * rng.uniform(0.05, 0.4))
                tone = random_colour(rng, saturation=(0.1, 0.9), value=(0.1, 0.9)).tolist()
                cv2.rectangle(canvas, (book, tall), (min(book + thick, x + w - 3), y1), tone, -1)
                book += thick + 1
    else:
        for shelf in range(1, shelves):
            y = top + shelf * h // shelves
            cv2.line(canvas, (x, y), (x + w, y), (colour * 0.4).tolist(), max(height // 200, 1))


def _wall(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """Bricks, planks, or one colour as in a studio, close behind."""
    height, width = size
    short = min(size)
    kind = rng.choice(["bricks", "planks", "studio"])
    canvas = np.empty((height, width, 3), dtype=np.float32)
    if kind == "studio":
        is_white = rng.random() < 0.5
        colour = (
            rgb(1, 1, 1) * rng.uniform(0.6, 1.1)
            if is_white
            else random_colour(rng, saturation=(0.1, 0.9), value=(0.2, 0.95))
        )
        canvas[:] = colour
    else:
        colour = (
            linear(*rng.choice([(150, 75, 55), (180, 150, 130), (200, 200, 195), (90, 60, 50)]))
            if kind == "bricks"
            else random_colour(rng, saturation=(0.1, 0.5), value=(0.3, 0.8))
        )
        canvas[:] = colour * 0.5
        h = max(round(short * rng.uniform(0.03, 0.08)), 4) if kind == "bricks" else height
        w = round(2.6 * h) if kind == "bricks" else max(round(short * rng.uniform(0.05, 0.18)), 5)
        for row, y in enumerate(range(0, height, h)):
            for x in range(-(row % 2) * w // 2, width, w):
                tone = (colour * rng.uniform(0.6, 1.2)).tolist()
                cv2.rectangle(canvas, (x + 1, y + 1), (x + w - 2, y + h - 2), tone, -1)
        grain = cloud_noise(size, short * 0.05, rng, stretch=0.2 if kind == "planks" else 1.5)
        canvas *= (0.7 + 0.6 * grain)[..., None]
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    slant = rng.uniform(-0.3, 0.3) * (rows - 0.5) + rng.uniform(-0.3, 0.3) * (columns - 0.5)
    canvas *= (1 + slant)[..., None]
    light = (
        _lamp_light(rng, colour, colour * 0.5)
        if kind == "studio" or rng.random() < 0.5
        else _daylight(rng, linear(120, 160, 210), linear(200, 210, 220), colour * 0.5)
    )
    return Backdrop(canvas, light, None, kind == "studio")


def _night(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """Dusk or night in a town: lit windows, lamps out of focus, a flash or a street lamp."""
    height, width = size
    canvas = np.empty((height, width, 3), dtype=np.float32)
    zenith = linear(*rng.choice([(8, 10, 18), (25, 30, 60), (40, 30, 60)]))
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    canvas[:] = blend(zenith, zenith * 2 + 0.01, np.broadcast_to(rows, size))
    horizon = round(height * rng.uniform(0.5, 0.95))
    _build_houses(canvas, horizon, rng, lit=True)
    _pave(canvas, horizon, linear(35, 35, 38), linear(60, 55, 50), rng)
    canvas = blur(canvas, max(rng.uniform(0.001, 0.015) * min(size), 0.4))
    _scatter_lights(canvas, rng, int(rng.integers(4, 40)))
    warm = rgb(1.0, rng.uniform(0.7, 1.0), rng.uniform(0.4, 1.0))
    is_flash = rng.random() < 0.6
    direction = _unit(0, -0.1, 1) if is_flash else _unit(rng.uniform(-1, 1), -0.7, 0.3)
    light = Light(
        direction=direction,
        direct=warm * rng.uniform(0.5, 1.3),
        above=warm * rng.uniform(0.02, 0.15),
        below=rgb(0.03, 0.03, 0.03),
        mirror=_mirror(rgb(0.02, 0.02, 0.02), rgb(0.12, 0.1, 0.06), zenith),
        windows=tuple(
            (*rng.uniform(-0.6, 0.6, 2).tolist(), 0.03, 0.03, 10.0)
            for _ in range(rng.integers(0, 6))
        ),
        sharpness=float(rng.uniform(100, 600)),
    )
    return Backdrop(canvas, light, horizon, False)


def _scatter_lights(canvas: Floats, rng: np.random.Generator, count: int) -> None:
    """Discs of light, as lamps out of focus make them: round and hot, yet no balloons."""
    height, width = canvas.shape[:2]
    largest = min(height, width) * rng.uniform(0.008, 0.06)
    layer = np.zeros_like(canvas)
    disc = np.zeros_like(canvas)
    for _ in range(count):
        radius = max(round(largest * rng.uniform(0.5, 1)), 1)
        colour = random_colour(rng, saturation=(0.0, 0.9), value=(0.7, 1)) * rng.uniform(0.3, 1.5)
        spot = (round(rng.uniform(0, width)), round(rng.uniform(0, 0.8) * height))
        box = (
            slice(max(spot[1] - radius - 1, 0), spot[1] + radius + 2),
            slice(max(spot[0] - radius - 1, 0), spot[0] + radius + 2),
        )
        disc[box] = 0
        cv2.circle(disc, spot, radius, colour.tolist(), -1)
        layer[box] += disc[box]
    canvas += blur(layer, max(0.08 * largest, 0.4))


def _out_of_focus(size: tuple[int, int], rng: np.random.Generator) -> Backdrop:
    """Anything at all, so far behind the focus that only colours are left."""
    height, width = size
    small = (max(height // 4, 8), max(width // 4, 8))
    base = random_colour(rng, saturation=(0.1, 0.7), value=(0.2, 0.9))
    other = random_colour(rng, saturation=(0.1, 0.8), value=(0.1, 0.9))
    noise = cloud_noise(small, min(small) * rng.uniform(0.2, 0.8), rng, stretch=1.0)
    canvas = blend(base, other, noise)
    for _ in range(rng.integers(0, 14)):
        colour = random_colour(rng, saturation=(0.0, 0.9), value=(0.05, 0.95)).tolist()
        corner = (round(rng.uniform(-0.2, 1) * small[1]), round(rng.uniform(-0.2, 1) * small[0]))
        extent = rng.uniform(0.03, 0.5, 2) * min(small)
        if rng.random() < 0.5:
            opposite = (corner[0] + round(extent[0]), corner[1] + round(3 * extent[1]))
            cv2.rectangle(canvas, corner, opposite, colour, -1)
        else:
            cv2.circle(canvas, corner, round(0.4 * extent[0]), colour, -1)
    canvas = blur(canvas, min(small) * rng.uniform(0.01, 0.06))
    canvas = np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR))
    if rng.random() < 0.5:
        _scatter_lights(canvas, rng, int(rng.integers(3, 25)))
    is_indoors = rng.random() < 0.5
    light = (
        _lamp_light(rng, base, other)
        if is_indoors
        else _daylight(rng, linear(120, 160, 210), linear(215, 220, 225), base * 0.5)
    )
    return Backdrop(canvas, light, None, is_indoors)
