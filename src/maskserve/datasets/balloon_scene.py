"""A photo-like picture of balloons, computed from nothing but a seed.

Latex balloons are bodies of revolution with a glossy, slightly translucent skin. Each is shaded
on a patch of its own, in linear light and at a multiple of the resolution: diffuse light of sun
and sky, light that shines through the skin, and reflections of a simple environment by Schlick's
approximation of Fresnel's equations (1994). The patches are laid over a park, the furthest
first, and the whole gets a lens's softness and a sensor's noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.core.masks import Mask
from maskserve.core.predictor import Image
from maskserve.datasets.rendering import (
    GAMMA,
    Floats,
    blend,
    blur,
    cloud_noise,
    rgb,
    smoothstep,
)

__all__ = ["render_balloons"]

_SUPERSAMPLING = 2
_HORIZON = 0.74
"""Where the grass begins, in heights of the picture."""

_LENGTH = 1.18
"""Half the length of a balloon's body, in half-widths."""

_COLOURS = (
    (206, 22, 36),
    (244, 176, 18),
    (22, 84, 190),
    (40, 146, 62),
    (228, 78, 146),
    (238, 98, 22),
    (110, 54, 156),
    (46, 164, 204),
    (238, 234, 226),
)
"""sRGB colours of the latex."""

_SUN = rgb(-0.50, -0.66, 0.56)
"""Direction to the sun: x to the right, y down, z towards the viewer."""

_SUN_LIGHT = rgb(1.00, 0.93, 0.82)
_SKY_LIGHT = rgb(0.50, 0.62, 0.82)
_GROUND_LIGHT = rgb(0.16, 0.20, 0.08)


@dataclass(frozen=True, slots=True)
class _Balloon:
    """One balloon: its centre and half-width in pixels, its tilt in radians, its colour."""

    x: float
    y: float
    radius: float
    tilt: float
    colour: tuple[int, int, int]
    is_far: bool


def render_balloons(*, size: tuple[int, int], count: int, seed: int) -> tuple[Image, list[Mask]]:
    """A bunch of balloons over a park, and a few that have flown away.

    Args:
        size: (height, width) of the picture.
        count: Balloons; about a quarter of them are small and far away.
        seed: The same seed gives the same picture.

    Returns:
        The picture, and what can be seen of each balloon with its knot but without its string.
        A balloon that is hidden altogether has no mask.
    """
    rng = np.random.default_rng(seed)
    canvas = _render_park(size, rng)
    hand = np.array([size[1] * rng.uniform(0.45, 0.55), size[0] * 1.06])
    covered = np.zeros(size, dtype=np.float32)
    masks: list[Mask] = []
    for balloon in _place(size, count, rng):
        _draw_string(canvas, balloon, hand, rng)
        place, light, alpha = _render_balloon(balloon, size)
        _darken_behind(canvas[place], covered[place], alpha, balloon.radius)
        canvas[place] *= 1 - alpha[..., None]
        canvas[place] += light
        covered[place] = np.maximum(covered[place], alpha)
        solid = np.zeros(size, dtype=np.bool_)
        solid[place] = alpha >= 0.5
        masks = [*(mask & ~solid for mask in masks), solid]
    return _develop(canvas, rng), [mask for mask in masks if mask.any()]


def _place(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Balloon]:
    """Balloons from the furthest to the nearest."""
    height, width = size
    short = min(size)
    far = count // 4
    colours = [_COLOURS[i % len(_COLOURS)] for i in rng.permutation(max(count, len(_COLOURS)))]
    # The bunch grows from its middle: each balloon takes the freest of some random places, so
    # that neighbours overlap a little, as in a bunch that is held together.
    middle = np.array([width * 0.5, height * 0.36])
    radius = short * min(0.15, 0.42 / np.sqrt(max(count - far, 1)))
    bunch: list[_Balloon] = []
    for i in range(far, count):
        own = radius * rng.uniform(0.82, 1.12)
        best, best_cost = middle, np.inf
        for _ in range(60):
            spot = middle + rng.normal(0, 1, 2) * (short * 0.22, short * 0.14)
            inside = 1.2 * own < spot[0] < width - 1.2 * own and 1.3 * own < spot[1] < height * 0.62
            apart = [np.hypot(*(spot - (b.x, b.y))) / (own + b.radius) for b in bunch]
            overlap = sum(max(0.0, 0.88 - distance) for distance in apart)
            cost = 9 * overlap + np.hypot(*(spot - middle)) / short + (0 if inside else 9)
            if cost < best_cost:
                best, best_cost = spot, cost
        tilt = 0.9 * (best[0] - middle[0]) / width + rng.normal(0, 0.06)
        bunch.append(_Balloon(best[0], best[1], own, tilt, colours[i], False))
    lost: list[_Balloon] = []
    for i in range(far):
        spots = rng.uniform((0.05, 0.06), (0.95, 0.55), (40, 2)) * (width, height)
        others = [*bunch, *lost]
        # The furthest from the edge of its nearest neighbour.
        freest = max(
            spots, key=lambda s: min(np.hypot(s[0] - b.x, s[1] - b.y) - b.radius for b in others)
        )
        own = short * rng.uniform(0.018, 0.04)
        lost.append(_Balloon(freest[0], freest[1], own, rng.uniform(-0.3, 0.3), colours[i], True))
    return [*lost, *sorted(bunch, key=lambda b: b.y)]


def _render_balloon(
    balloon: _Balloon, size: tuple[int, int]
) -> tuple[tuple[slice, slice], Floats, Floats]:
    """A place in the picture, and there light (h, w, 3) weighted by coverage, and coverage."""
    height, width = size
    reach = int(np.ceil(1.45 * balloon.radius)) + 2
    left, top = int(balloon.x) - reach, int(balloon.y) - reach
    side = 2 * reach
    steps = (np.arange(side * _SUPERSAMPLING, dtype=np.float32) + 0.5) / _SUPERSAMPLING
    px, py = np.meshgrid(
        (steps + left - balloon.x) / balloon.radius, (steps + top - balloon.y) / balloon.radius
    )
    cosine, sine = np.float32(np.cos(balloon.tilt)), np.float32(np.sin(balloon.tilt))
    x, y = px * cosine + py * sine, -px * sine + py * cosine  # in the balloon's own axes

    along, profile = _profile()
    radius = np.interp(y, along, profile, left=0, right=0).astype(np.float32)
    slope = np.interp(y, along, np.gradient(profile, along)).astype(np.float32)
    inside = np.abs(x) < radius
    z = np.sqrt(np.clip(radius**2 - x**2, 0, None))
    nx, ny, nz = x, -radius * slope, z
    length = np.sqrt(nx**2 + ny**2 + nz**2) + 1e-6
    nx, ny, nz = nx / length, ny / length, nz / length
    normal = np.stack((nx * cosine - ny * sine, nx * sine + ny * cosine, nz), axis=-1)

    light = _shade(normal, rgb(*balloon.colour) / 255)
    # The knot and the neck hold many layers of latex.
    light *= np.where(y > 0.985 * _LENGTH, 0.55, 1).astype(np.float32)[..., None]
    if balloon.is_far:
        light = 0.78 * light + 0.22 * rgb(0.55, 0.66, 0.80)  # haze
    patch = np.dstack((light * inside[..., None], inside.astype(np.float32)))
    patch = np.asarray(cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA))
    if balloon.is_far:
        patch = blur(patch, 0.8)

    y0, y1 = np.clip((top, top + side), 0, height)
    x0, x1 = np.clip((left, left + side), 0, width)
    patch = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    return (slice(y0, y1), slice(x0, x1)), patch[..., :3], patch[..., 3]


def _profile() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions along the axis and the radius there, both in half-widths of the balloon."""
    u = np.linspace(-1, 1.12, 801)  # -1 is the top, 1 the neck, and the knot lies beyond
    body = np.sqrt(np.clip(1 - u**2, 0, 1)) * (1 - 0.24 * np.clip(u, 0, 1) ** 1.6)
    knot = np.interp(
        u, [0.95, 0.975, 1.01, 1.05, 1.09, 1.115, 1.12], [0, 0.07, 0.045, 0.075, 0.10, 0.07, 0]
    )
    return u * _LENGTH, np.maximum(body, knot)


def _shade(normal: Floats, colour: Floats) -> Floats:
    """Light, (…, 3), that a skin of an sRGB colour sends to the viewer."""
    facing = normal[..., 2:]
    # Towards the rim the line of sight runs a longer way through the skin.
    skin = (colour**GAMMA) ** (1 + 0.7 * (1 - facing) ** 2)
    to_sun = (normal @ _SUN)[..., None]
    up = 0.5 - 0.5 * normal[..., 1:2]
    direct = np.clip((to_sun + 0.25) / 1.25, 0, None) ** 1.4 * _SUN_LIGHT * 0.85
    ambient = (_SKY_LIGHT * up + _GROUND_LIGHT * (1 - up)) * 0.55
    through = np.clip(0.55 - to_sun, 0, None) ** 1.5 * _SUN_LIGHT * 0.24
    light = skin * (direct + ambient) + skin**1.25 * through

    mirrored = 2 * facing * normal
    mirrored[..., 2] -= 1
    fresnel = 0.035 + 0.6 * (1 - facing) ** 5
    light += fresnel * _environment(mirrored)
    sun = np.clip(mirrored @ _SUN, 0, None)[..., None]
    return np.asarray(light + _SUN_LIGHT * (0.9 * sun**300 + 0.10 * sun**24), dtype=np.float32)


def _environment(direction: Floats) -> Floats:
    """Light that comes from a direction: sky above, a dark line of trees, grass below."""
    up = -direction[..., 1:2]
    sky = _SKY_LIGHT * 0.9 + (rgb(0.95, 0.97, 1.0) - _SKY_LIGHT * 0.9) * np.exp(
        -3 * np.clip(up, 0, None)
    )
    ground = _GROUND_LIGHT * (1 + 0.8 * np.clip(-up, 0, 1))
    trees = rgb(0.03, 0.05, 0.02)
    # The skin is not a perfect mirror, so that all edges in it are soft.
    above, below = smoothstep(up, 0.0, 0.45), smoothstep(-up, 0.0, 0.35)
    return np.asarray(above * sky + below * ground + (1 - above) * (1 - below) * trees)


def _darken_behind(canvas: Floats, covered: Floats, alpha: Floats, radius: float) -> None:
    """The soft shadow that a balloon throws on those right behind it."""
    shift = np.array([[1, 0, 0.16 * radius], [0, 1, 0.22 * radius]])
    shifted = np.asarray(cv2.warpAffine(alpha, shift, alpha.shape[::-1]), dtype=np.float32)
    shadow = blur(shifted, max(0.14 * radius, 0.5))
    canvas *= 1 - (0.5 * shadow * covered)[..., None]


def _draw_string(
    canvas: Floats, balloon: _Balloon, hand: npt.NDArray[np.float64], rng: np.random.Generator
) -> None:
    """A ribbon from the knot to the hand; a lost balloon trails the rest of its own."""
    below = 1.1 * _LENGTH * balloon.radius
    knot = np.array(
        [balloon.x - below * np.sin(balloon.tilt), balloon.y + below * np.cos(balloon.tilt)]
    )
    end = knot + balloon.radius * np.array([rng.uniform(-1, 1), 4.0]) if balloon.is_far else hand
    t = np.linspace(0, 1, 60)[:, None]
    # It leaves along the balloon's axis and hangs a little.
    control = knot + np.hypot(*(end - knot)) * 0.35 * np.array([-np.sin(balloon.tilt), 1.0])
    curve = (1 - t) ** 2 * knot + 2 * t * (1 - t) * control + t**2 * end
    curve[:, 0] += np.sin(t[:, 0] * rng.uniform(5, 9)) * t[:, 0] * 0.06 * balloon.radius
    layer = np.zeros(canvas.shape[:2], dtype=np.uint8)
    points = np.round(curve * 16).astype(np.int32)
    cv2.polylines(layer, [points], False, 255, 1, cv2.LINE_AA, shift=4)
    strength = 0.4 if balloon.is_far else 0.75
    opacity = (layer.astype(np.float32) * (strength / 255))[..., None]
    canvas *= 1 - opacity
    canvas += opacity * rgb(0.62, 0.62, 0.60)


def _render_park(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Sky with clouds, trees out of focus, and a meadow, in linear light."""
    height, width = size
    short = min(size)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    depth = np.clip(rows / _HORIZON, 0, 1)
    sky = blend(rgb(0.13, 0.31, 0.68), rgb(0.60, 0.76, 0.92), depth**0.8)
    noise = cloud_noise(size, short * 0.5, rng, stretch=2.2)
    shade = cloud_noise(size, short * 0.22, rng, stretch=1.8)
    clouds = np.clip((noise - 0.52) * 5, 0, 1) * np.clip(1.25 - 0.5 * depth, 0, 1)
    canvas = blend(sky, (0.80 + 0.22 * shade)[..., None] * rgb(1, 0.99, 0.97), clouds)

    trees = np.zeros(size, dtype=np.float32)
    leaves = np.zeros((height, width, 3), dtype=np.float32)
    horizon = height * _HORIZON
    for _ in range(220):
        radius = short * rng.uniform(0.02, 0.06)
        centre = (rng.uniform(-0.05, 1.05) * width, horizon - abs(rng.normal(0, 0.05)) * short)
        green = rgb(0.035, 0.075, 0.018) * rng.uniform(0.5, 2.0)
        spot = (round(centre[0]), round(centre[1]))
        cv2.circle(leaves, spot, round(radius), green.tolist(), -1)
        cv2.circle(trees, spot, round(radius), 1.0, -1)
    hedge = slice(round(horizon - 0.045 * short), round(horizon) + 2)
    trees[hedge] = 1
    leaves[hedge] = np.where(leaves[hedge] > 0, leaves[hedge], rgb(0.03, 0.06, 0.015))
    fine = cloud_noise(size, short * 0.025, rng, stretch=1.0)
    leaves *= (0.35 + 1.3 * fine)[..., None]
    # The noise makes the outline leafy; what lies well inside it stays closed.
    rim = blur(trees, short * 0.01)
    edge = np.clip((rim + 0.8 * (fine - 0.5) - 0.2) * 5, 0, 1) * (rim > 0.05)
    softness = short * 0.006
    leaves = blur(leaves, softness)
    canvas = blend(canvas, leaves, blur(edge, softness))

    return _lay_meadow(canvas, rng)


def _lay_meadow(canvas: Floats, rng: np.random.Generator) -> Floats:
    """Grass whose tufts grow towards the viewer, and the shadows of what floats above it."""
    height, width = canvas.shape[:2]
    short = min(height, width)
    horizon = round(height * _HORIZON)
    near = np.linspace(0, 1, height - horizon, dtype=np.float32)[:, None]
    # Perspective: the texture is sampled on a plane that recedes to the horizon.
    texture = cloud_noise((768, 1024), 10, rng, stretch=1.0)
    distance = 1 / (near + 0.10)
    columns = (np.arange(width, dtype=np.float32)[None] - width / 2) / short * distance * 260 + 512
    lines = np.broadcast_to(distance * 330, columns.shape)
    tufts = cv2.remap(
        texture,
        np.ascontiguousarray(np.mod(columns, 1023), dtype=np.float32),
        np.ascontiguousarray(np.mod(lines, 767), dtype=np.float32),
        cv2.INTER_LINEAR,
    )
    blades = rng.random((height - horizon, width), dtype=np.float32)
    blades = blur(blades, 0.8, 3.5) - 0.5
    grass = blend(rgb(0.16, 0.27, 0.06), rgb(0.09, 0.18, 0.025), near)
    patches = cloud_noise((height - horizon, width), short * 0.12, rng, stretch=4.0)
    grass = (
        grass
        * (0.75 + 0.5 * patches)[..., None]
        * (0.55 + 0.9 * tufts + 2.2 * blades * near)[..., None]
    )
    canvas[horizon:] = np.clip(grass, 0, 1)
    shadow = np.zeros((height, width), dtype=np.float32)
    for _ in range(6):
        spot = (round(width * rng.uniform(0.55, 0.80)), round(height * rng.uniform(0.84, 0.90)))
        axes = (round(short * 0.07), round(short * 0.016))
        cv2.ellipse(shadow, spot, axes, 0, 0, 360, 1.0, -1)
    canvas *= 1 - 0.5 * blur(shadow, short * 0.008)[..., None]
    seam = slice(horizon - short // 50, horizon + short // 50)
    canvas[seam] = blur(canvas[seam], 0.1, short * 0.004)
    return canvas


def _develop(light: Floats, rng: np.random.Generator) -> Image:
    """From linear light to an 8-bit photo, with a lens's softness and a sensor's noise."""
    height, width = light.shape[:2]
    light = blur(light, 0.6)
    glow = blur(np.clip(light - 0.85, 0, None), min(height, width) * 0.01)
    light = light + 0.5 * glow
    light = light * (1 + light / 4) / (1 + light)  # extended Reinhard: 2 becomes 1
    light *= 1.55
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - 0.12 * (x**2 + y**2) / 2).astype(np.float32)[..., None]
    photo = np.clip(light, 0, 1) ** np.float32(1 / GAMMA)
    noise = rng.normal(0, 0.009, (height, width, 1)) + rng.normal(0, 0.006, (height, width, 3))
    photo = photo + blur(noise, 0.5)
    return np.asarray(np.clip(photo * 255 + 0.5, 0, 255), dtype=np.uint8)
