"""Balloons as they are photographed: anywhere, of any size, among things that look like them.

Where :mod:`maskserve.datasets.balloon_scene` renders one good-looking bunch over one park, this
renders photos to learn from: places, light, shapes, skins and arrangements are all random, and so
are the camera's faults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.core.masks import Mask
from maskserve.core.predictor import Image
from maskserve.datasets.rendering import GAMMA, Floats, blur, rgb
from maskserve.datasets.scene_backdrops import Backdrop, linear, paint_backdrop, random_colour
from maskserve.datasets.scene_bodies import (
    Body,
    Foil,
    Sprite,
    balloon_profile,
    render_body,
    render_foil,
)
from maskserve.datasets.scene_props import (
    PrintKind,
    make_picture,
    make_print,
    make_prop,
    render_person,
)

__all__ = ["render_balloon_photo"]

_LEAST_VISIBLE_PX = 20
"""Of a balloon of which less is seen, nobody would draw an outline."""

_SMALLEST_RADIUS_PX = 5.0


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a balloon is: its centre and half-width in pixels, its tilt in radians."""

    x: float
    y: float
    radius: float
    tilt: float
    string_to: tuple[float, float] | None = None


def render_balloon_photo(
    *, size: tuple[int, int], count: int, seed: int
) -> tuple[Image, list[Mask]]:
    """Balloons in a random place, with props that hide parts of them or resemble them.

    Args:
        size: (height, width) of the picture.
        count: Balloons, from 10 pixels wide up to such as fill the picture. Some may be hidden
            behind others or lie beyond the border.
        seed: The same seed gives the same picture.

    Returns:
        The picture, and what can be seen of each balloon with its knot but without its string:
        bool masks that do not overlap. A balloon of which next to nothing is seen has none.
    """
    rng = np.random.default_rng(seed)
    backdrop = paint_backdrop(size, rng)
    canvas = backdrop.canvas
    spots = _arrange(size, count, backdrop, rng)
    behind = [make_prop(size, backdrop, rng) for _ in range(rng.poisson(2.5))]
    before = [make_prop(size, backdrop, rng) for _ in range(rng.poisson(0.6))]
    people = [_render_somebody(backdrop, size, rng) for _ in range(rng.poisson(0.7))]
    for person in people:
        (before if rng.random() < 0.35 else behind).append(person)

    owner = np.zeros(size, dtype=np.int32)  # 0 is no balloon
    for prop in behind:
        for sprite in prop:
            _lay(canvas, sprite)
    style = _Style.random(rng)
    for number, spot in enumerate(spots, start=1):
        if spot.string_to is not None:
            _draw_string(canvas, spot, spot.string_to, rng)
        balloon = _render(spot, style, size, backdrop=backdrop, rng=rng)
        if balloon is not None:
            _darken_behind(canvas, owner, balloon, radius=spot.radius)
            _lay(canvas, balloon)
            owner[balloon.place][balloon.coverage >= 0.5] = number
    for prop in before:
        for sprite in prop:
            _lay(canvas, sprite)
            owner[sprite.place][sprite.coverage >= 0.5] = 0
    shown = np.bincount(owner.ravel(), minlength=len(spots) + 1)
    masks = [
        owner == number for number in range(1, len(spots) + 1) if shown[number] >= _LEAST_VISIBLE_PX
    ]
    return _develop(canvas, rng), masks


@dataclass(frozen=True, slots=True, eq=False)
class _Style:
    """What the balloons of one photo have in common."""

    palette: tuple[Floats, ...]
    prints: PrintKind | None
    foils: float
    pictures: float  # share of the foil balloons with prints of many colours
    translucent: bool
    softness_px: float
    defocus: float  # softness as a share of a balloon's radius

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Style:
        kinds: list[PrintKind] = ["dots", "stars", "text", "face", "swirl", "stripes"]
        pastel = rng.random() < 0.25
        saturation, value = ((0.1, 0.45), (0.8, 1.0)) if pastel else ((0.65, 1.0), (0.35, 1.0))
        palette = [
            random_colour(rng, saturation=saturation, value=value)
            for _ in range(rng.integers(1, 9))
        ]
        neutral = [linear(240, 238, 235), linear(22, 22, 25), linear(190, 150, 80)]
        palette += [neutral[rng.integers(3)] for _ in range(int(rng.random() < 0.5))]
        return cls(
            palette=tuple(palette),
            prints=kinds[rng.integers(len(kinds))] if rng.random() < 0.35 else None,
            foils=float(rng.choice([0.0, 0.0, 0.15, 0.5])),
            pictures=float(rng.choice([0.0, 0.5, 1.0])),
            translucent=bool(rng.random() < 0.3),
            softness_px=float(rng.choice([0.0, 0.0, 0.0, 1.0, 2.0])),
            defocus=float(rng.choice([0.0, 0.0, 0.0, 0.03, 0.08])),
        )


def _arrange(
    size: tuple[int, int], count: int, backdrop: Backdrop, rng: np.random.Generator
) -> list[_Spot]:
    """Places of balloons from the furthest to the nearest."""
    ways: list[Callable[[tuple[int, int], int, np.random.Generator], list[_Spot]]]
    ways = [_bunch, _bunch, _scatter, _garland, _close_up, _heap, _sea, _sea]
    if backdrop.is_indoors:
        ways += [_under_ceiling, _under_ceiling]
    if backdrop.ground is not None:
        ways.append(partial(_on_ground, ground=backdrop.ground))
    spots: list[_Spot] = []
    while len(spots) < count:
        wanted = max(1, round((count - len(spots)) * rng.uniform(0.5, 1)))
        spots += ways[rng.integers(len(ways))](size, wanted, rng)
    # Mostly the large ones are near, yet not always.
    depth = [np.log(spot.radius) + rng.normal(0, 0.35) for spot in spots]
    return [spots[i] for i in np.argsort(depth)]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _hanging(x: float, y: float, radius: float, rng: np.random.Generator) -> _Spot:
    """A balloon that is up, with or without its string."""
    radius = max(radius, _SMALLEST_RADIUS_PX)
    end = None
    if rng.random() < 0.6:
        end = (x + radius * rng.uniform(-1.5, 1.5), y + radius * rng.uniform(2, 9))
    return _Spot(x, y, radius, rng.normal(0, 0.25), end)


def _scatter(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """Balloons that fly, near and far."""
    height, width = size
    return [
        _hanging(x, y, _log_uniform(rng, 0.012, 0.12) * min(size), rng)
        for x, y in rng.uniform((0, 0), (width, 0.8 * height), (count, 2))
    ]


def _close_up(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """One or two that fill much of the picture, or reach out of it."""
    height, width = size
    return [
        _hanging(x, y, rng.uniform(0.22, 0.55) * min(size), rng)
        for x, y in rng.uniform(-0.05, 1.05, (min(count, 2), 2)) * (width, height)
    ]


def _heap(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """Balloons that lie about in the foreground, turned every way."""
    height, width = size
    radius = _log_uniform(rng, 0.08, 0.25) * min(size)
    return [
        _Spot(x, y, radius * rng.uniform(0.8, 1.2), rng.uniform(0, 2 * np.pi))
        for x, y in rng.uniform((0, 0.55), (1, 1.05), (count, 2)) * (width, height)
    ]


def _sea(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """Side by side from some height down, the nearer the larger, hiding much of one another."""
    height, width = size
    top = rng.uniform(-0.2, 0.5)
    far = rng.uniform(0.25, 1.0)  # radius there as a share of the nearest one's
    area = (1.1 - top) * height * width
    filled = rng.uniform(0.8, 2.5)  # 1: as large in sum as what they are to fill
    near = np.sqrt(filled * area / (count * np.pi * (1 + far + far**2) / 3))
    near = min(near, 0.6 * min(size))
    spots: list[_Spot] = []
    for _ in range(count):
        depth = rng.uniform(0, 1, 12)
        x = rng.uniform(-0.05, 1.05, 12) * width
        y = (top + depth * (1.1 - top)) * height
        radius = np.maximum(near * (far + depth * (1 - far)), _SMALLEST_RADIUS_PX)
        # The freest of some places, in the measure of those side by side.
        others = np.array([(spot.x, spot.y, spot.radius) for spot in spots]).reshape(-1, 3)
        apart = np.hypot(x[:, None] - others[:, 0], y[:, None] - others[:, 1])
        i = int(np.argmax((apart / (radius[:, None] + others[:, 2])).min(axis=1, initial=9)))
        tilt = rng.uniform(0, 2 * np.pi)
        spots.append(_Spot(x[i], y[i], radius[i] * rng.uniform(0.85, 1.1), tilt))
    return spots


def _under_ceiling(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    height, width = size
    radius = _log_uniform(rng, 0.03, 0.11) * min(size)
    return [
        _hanging(x, y, radius * rng.uniform(0.8, 1.2), rng)
        for x, y in rng.uniform((0, 0), (width, 0.3 * height), (count, 2))
    ]


def _on_ground(
    size: tuple[int, int], count: int, rng: np.random.Generator, *, ground: int
) -> list[_Spot]:
    """A few that lie on the ground from row ``ground`` on, the larger the nearer."""
    height, width = size
    spots = []
    for depth in rng.uniform(0.05, 1, min(count, 4)):
        radius = max((0.03 + 0.11 * depth) * min(size), _SMALLEST_RADIUS_PX)
        y = ground + depth * (height - ground) - radius
        tilt = rng.choice([-1, 1]) * rng.uniform(0.9, 2.2)
        spots.append(_Spot(rng.uniform(0, width), y, radius, tilt))
    return spots


def _bunch(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """Balloons side by side whose strings run to one hand."""
    height, width = size
    short = min(size)
    radius = max(
        _log_uniform(rng, 0.025, 0.2) * short / np.sqrt(max(count / 4, 1)), _SMALLEST_RADIUS_PX
    )
    middle = rng.uniform((0.1, 0.05), (0.9, 0.6), 2) * (width, height)
    spread = radius * np.sqrt(count) * np.array([1.0, rng.uniform(0.5, 1.1)])
    hand = (
        middle[0] + radius * rng.uniform(-3, 3),
        middle[1] + spread[1] + radius * rng.uniform(3, 9),
    )
    with_strings = rng.random() < 0.8
    spots: list[_Spot] = []
    for _ in range(count):
        tries = middle + rng.normal(0, 0.8, (24, 2)) * spread
        others = np.array([(spot.x, spot.y) for spot in spots]).reshape(-1, 2)
        apart = np.linalg.norm(tries[:, None] - others[None], axis=-1).min(axis=1, initial=np.inf)
        crowded = np.clip(1.6 - apart / radius, 0, None)
        far = np.linalg.norm((tries - middle) / (spread + 1e-6), axis=1)
        x, y = tries[np.argmin(4 * crowded + far)]
        tilt = 0.5 * (x - middle[0]) / (spread[0] + 1e-6) + rng.normal(0, 0.12)
        own = max(radius * rng.uniform(0.8, 1.15), _SMALLEST_RADIUS_PX)
        spots.append(_Spot(x, y, own, tilt, hand if with_strings else None))
    return spots


def _garland(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Spot]:
    """Balloons tied to a line or an arch, their knots at it."""
    height, width = size
    radius = max(_log_uniform(rng, 0.02, 0.09) * min(size), _SMALLEST_RADIUS_PX)
    start, bend, end = rng.uniform((-0.1, 0.0), (1.1, 0.9), (3, 2)) * (width, height)
    t = np.linspace(0, 1, 400)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    way = np.append(0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    spots = []
    for i in range(count):
        at = curve[min(int(np.searchsorted(way, i * 1.3 * radius)), len(curve) - 1)]
        tilt = rng.uniform(0, 2 * np.pi)
        away = np.array([np.sin(tilt), -np.cos(tilt)]) * 0.9 * radius
        x, y = at + away
        spots.append(_Spot(x, y, max(radius * rng.uniform(0.7, 1.2), _SMALLEST_RADIUS_PX), tilt))
    return spots


def _render(
    spot: _Spot,
    style: _Style,
    size: tuple[int, int],
    *,
    backdrop: Backdrop,
    rng: np.random.Generator,
) -> Sprite | None:
    colour = style.palette[rng.integers(len(style.palette))] * np.float32(rng.uniform(0.85, 1.15))
    contrast = linear(20, 20, 22) if colour.mean() > 0.5 else linear(245, 245, 240)
    kind = style.prints if style.prints is not None and rng.random() < 0.8 else None
    printed = make_print(kind, contrast, rng) if kind is not None else None
    softness = style.softness_px * rng.uniform(0, 1.5) + style.defocus * spot.radius * rng.random()
    softness = min(softness, 0.12 * spot.radius)
    if rng.random() < style.foils:
        if rng.random() < style.pictures:
            printed = make_picture(rng)
        return render_foil(
            Foil(
                spot.x,
                spot.y,
                spot.radius,
                spot.tilt,
                _foil_outline(rng),
                np.clip(0.25 + 0.75 * colour, 0, 1) if rng.random() < 0.3 else colour,
                printed,
                softness,
            ),
            size,
            backdrop.light,
        )
    clear = style.translucent and rng.random() < 0.7
    from_end = rng.random() < 0.15
    profile = balloon_profile(
        length=1.0 if from_end else float(rng.uniform(1.0, 1.32)),
        taper=0.0 if from_end else float(rng.uniform(0.12, 0.34)),
        with_knot=bool(not from_end and rng.random() < 0.9),
    )
    body = Body(
        spot.x,
        spot.y,
        spot.radius,
        spot.tilt,
        profile,
        colour,
        gloss=float(rng.uniform(0.7, 1.2)),
        opacity=float(rng.uniform(0.4, 0.85)) if clear else 1.0,
        printed=printed,
        softness_px=softness,
    )
    return render_body(body, size, backdrop.light)


def _foil_outline(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A heart, a star or a disc, in half-widths."""
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    kind = rng.choice(["heart", "star", "disc", "disc"])
    if kind == "heart":
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.column_stack((x, -y)) / 16
    if kind == "star":
        reach = 1 / (1 + 0.28 * np.cos(5 * t)) / 1.25
        return np.column_stack((reach * np.sin(t), reach * np.cos(t)))
    return np.column_stack((np.cos(t), np.sin(t)))


def _render_somebody(
    backdrop: Backdrop, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Sprite, ...]:
    height, width = size
    tall = _log_uniform(rng, 0.25, 1.6) * height
    ground = backdrop.ground if backdrop.ground is not None else 0.9 * height
    foot = max(ground + rng.uniform(0, 0.3) * height, 0.55 * tall + 0.1 * height)
    spot = (rng.uniform(0, width), foot)
    return render_person(spot, tall, backdrop=backdrop, size=size, rng=rng)


def _lay(canvas: Floats, sprite: Sprite) -> None:
    area = canvas[sprite.place]
    area *= 1 - sprite.opacity[..., None]
    area += sprite.light


def _darken_behind(
    canvas: Floats, owner: npt.NDArray[np.int32], sprite: Sprite, *, radius: float
) -> None:
    """The soft shadow that a balloon throws on those right behind it."""
    covered = owner[sprite.place] > 0
    if not covered.any():
        return
    shift = np.array([[1, 0, 0.1 * radius], [0, 1, 0.2 * radius]])
    coverage = sprite.coverage
    shadow = np.asarray(cv2.warpAffine(coverage, shift, coverage.shape[::-1]), np.float32)
    shadow = blur(shadow, max(0.12 * radius, 0.5))
    canvas[sprite.place] *= 1 - (0.4 * shadow * covered)[..., None]


def _draw_string(
    canvas: Floats, spot: _Spot, end: tuple[float, float], rng: np.random.Generator
) -> None:
    """A ribbon from below the knot to where it is held."""
    below = 1.2 * spot.radius
    knot = np.array([spot.x - below * np.sin(spot.tilt), spot.y + below * np.cos(spot.tilt)])
    t = np.linspace(0, 1, 40)[:, None]
    bend = knot + 0.4 * np.hypot(*(np.array(end) - knot)) * np.array([-np.sin(spot.tilt), 1.0])
    curve = (1 - t) ** 2 * knot + 2 * t * (1 - t) * bend + t**2 * np.array(end)
    curve[:, 0] += np.sin(t[:, 0] * rng.uniform(3, 12)) * t[:, 0] * 0.12 * spot.radius
    low = np.clip(np.floor(curve.min(axis=0)) - 3, 0, canvas.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(curve.max(axis=0)) + 3, 0, canvas.shape[1::-1]).astype(int)
    if (high <= low).any():
        return
    layer = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
    thickness = max(round(0.03 * spot.radius * rng.uniform(0.5, 1.5)), 1)
    points = np.round((curve - low) * 16).astype(np.int32)
    cv2.polylines(layer, [points], False, 255, thickness, cv2.LINE_AA, shift=4)
    opacity = layer.astype(np.float32) * np.float32(rng.uniform(0.3, 0.9) / 255)
    tone = rgb(1, 1, 1) * rng.uniform(0.05, 0.8)
    place = (slice(low[1], high[1]), slice(low[0], high[0]))
    _lay(canvas, Sprite(place, opacity[..., None] * tone, opacity, opacity))


def _develop(light: Floats, rng: np.random.Generator) -> Image:
    """From linear light to an 8-bit photo, by a camera that is none of the best."""
    height, width = light.shape[:2]
    unit = min(height, width) / 480
    light = blur(light, max(rng.uniform(0.4, 1.0) * unit, 0.35))
    # Exposure follows the picture's brightness, as a camera's does, but not all the way.
    brightness = float(light[::8, ::8].mean()) + 0.02
    light = light * np.float32((0.35 / brightness) ** 0.6 * rng.uniform(0.8, 1.7))
    light *= rgb(*rng.uniform(0.9, 1.1, 3))
    glow = blur(np.clip(light[::2, ::2] - 0.9, 0, 2), 4 * unit)
    light += 0.4 * np.asarray(cv2.resize(glow, (width, height), interpolation=cv2.INTER_LINEAR))
    light = 1.5 * light * (1 + light / 5) / (1 + light)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - rng.uniform(0, 0.3) * (x**2 + y**2) / 2).astype(np.float32)[..., None]
    photo = np.clip(light, 0, 1) ** np.float32(1 / GAMMA)
    grey = photo.mean(axis=2, keepdims=True)
    photo = grey + (photo - grey) * np.float32(rng.uniform(0.75, 1.25))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    photo += noise * np.float32(rng.uniform(0.002, 0.025))
    return np.asarray(np.clip(photo * 255 + 0.5, 0, 255), dtype=np.uint8)
