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

__all__ = ["render_balloons"]

Floats = npt.NDArray[np.float32]

_GAMMA = 2.2
_SUPERSAMPLING = 3
_HORIZON = 0.74
"""Where the grass begins, in heights of the picture."""

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

_SUN = np.array([-0.50, -0.66, 0.56], dtype=np.float32)
"""Direction to the sun: x to the right, y down, z towards the viewer."""

_SUN_LIGHT = np.array([1.00, 0.93, 0.82], dtype=np.float32)
_SKY_LIGHT = np.array([0.50, 0.62, 0.82], dtype=np.float32)
_GROUND_LIGHT = np.array([0.16, 0.20, 0.08], dtype=np.float32)


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
    hand = np.array([size[1] * rng.uniform(0.45, 0.55), size[0] * 0.95])
    covered = np.zeros(size, dtype=np.float32)
    masks: list[Mask] = []
    for balloon in _place(size, count, rng):
        _draw_string(canvas, balloon, hand, rng)
        colour, alpha = _render_balloon(balloon, size)
        _darken_behind(canvas, covered, alpha, balloon.radius)
        canvas *= 1 - alpha[..., None]
        canvas += colour
        covered = np.maximum(covered, alpha)
        solid = alpha >= 0.5
        masks = [*(mask & ~solid for mask in masks), solid]
    return _develop(canvas, rng), [mask for mask in masks if mask.any()]


def _place(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[_Balloon]:
    """Balloons from the furthest to the nearest."""
    height, width = size
    short = min(size)
    far = count // 4
    colours = [_COLOURS[i % len(_COLOURS)] for i in rng.permutation(max(count, len(_COLOURS)))]
    placed: list[_Balloon] = []
    for i in range(far):
        placed.append(
            _Balloon(
                width * rng.uniform(0.06, 0.94),
                height * rng.uniform(0.08, 0.52),
                short * rng.uniform(0.018, 0.035),
                rng.uniform(-0.3, 0.3),
                colours[i],
                True,
            )
        )
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
            inside = (
                1.2 * own < spot[0] < width - 1.2 * own and 1.3 * own < spot[1] < height * 0.62
            )
            apart = [np.hypot(*(spot - (b.x, b.y))) / (own + b.radius) for b in bunch]
            overlap = sum(max(0.0, 0.88 - distance) for distance in apart)
            cost = 9 * overlap + np.hypot(*(spot - middle)) / short + (0 if inside else 9)
            if cost < best_cost:
                best, best_cost = spot, cost
        tilt = 0.9 * (best[0] - middle[0]) / width + rng.normal(0, 0.06)
        bunch.append(_Balloon(best[0], best[1], own, tilt, colours[i], False))
    return [*sorted(placed, key=lambda b: b.radius), *sorted(bunch, key=lambda b: b.y)]


def _render_balloon(balloon: _Balloon, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Light (H, W, 3), already weighted by its coverage, and the coverage (H, W)."""
    height, width = size
    reach = int(np.ceil(1.6 * balloon.radius)) + 2
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

    light = _shade(normal, np.float32(balloon.colour) / 255)
    # The knot and the neck hold many layers of latex.
    light *= np.where(y > 0.985 * _LENGTH, 0.55, 1).astype(np.float32)[..., None]
    if balloon.is_far:
        light = 0.78 * light + 0.22 * np.float32([0.55, 0.66, 0.80])  # haze
    patch = np.dstack((light * inside[..., None], inside.astype(np.float32)))
    patch = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    if balloon.is_far:
        patch = cv2.GaussianBlur(patch, (0, 0), 0.8)

    whole = np.zeros((height, width, 4), dtype=np.float32)
    y0, y1, x0, x1 = max(top, 0), min(top + side, height), max(left, 0), min(left + side, width)
    if y1 > y0 and x1 > x0:
        whole[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    return whole[..., :3], whole[..., 3]


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
    skin = (colour**_GAMMA) ** (1 + 0.7 * (1 - facing) ** 2)
    to_sun = (normal @ _SUN)[..., None]
    up = 0.5 - 0.5 * normal[..., 1:2]
    direct = np.clip((to_sun + 0.25) / 1.25, 0, None) ** 1.4 * _SUN_LIGHT * 0.85
    ambient = (_SKY_LIGHT * up + _GROUND_LIGHT * (1 - up)) * 0.55
    through = np.clip(0.55 - to_sun, 0, None) ** 1.5 * _SUN_LIGHT * 0.16
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
    sky = _SKY_LIGHT * 0.9 + (np.float32([0.95, 0.97, 1.0]) - _SKY_LIGHT * 0.9) * np.exp(
        -3 * np.clip(up, 0, None)
    )
    ground = _GROUND_LIGHT * (1 + 0.8 * np.clip(-up, 0, 1))
    trees = np.float32([0.03, 0.05, 0.02])
    above, below = np.clip((up - 0.10) / 0.08, 0, 1), np.clip((-up - 0.02) / 0.10, 0, 1)
    return above * sky + below * ground + (1 - above) * (1 - below) * trees
