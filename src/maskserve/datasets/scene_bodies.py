"""Solid things of computed pictures: round bodies and foil balloons, shaded in a given light.

Everything is shaded once a pixel; coverage of the edge pixels comes from the distance to the
outline, so that no supersampling is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.datasets.rendering import Floats, blend, blur, smoothstep

__all__ = [
    "Body",
    "Foil",
    "Light",
    "Print",
    "Profile",
    "Sprite",
    "balloon_profile",
    "render_body",
    "render_foil",
    "sphere_profile",
]

Profile = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Positions along an axis and the radius there, in half-widths of the body; ascending."""


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Where light comes from; all colours are linear, float32 of shape (3,).

    Attributes:
        direction: Unit vector to the lamp or the sun: x right, y down, z towards the viewer.
        direct: What comes from there.
        above: What comes from all around above.
        below: What comes from all around below.
        mirror: What a mirror shows from below (0) to above (255): float32, shape (256, 3).
        windows: Bright rectangles that a mirror shows: x, y, half width, half height, in the
            units of a reflected direction, and strength.
        bulbs: Bright discs that a mirror shows, as of a string of lights: x, y, radius, strength.
        sharpness: Exponent of the highlight: 20 for a cloudy sky, 400 for a bare lamp.
    """

    direction: Floats
    direct: Floats
    above: Floats
    below: Floats
    mirror: Floats
    windows: tuple[tuple[float, float, float, float, float], ...] = ()
    bulbs: tuple[tuple[float, float, float, float], ...] = ()
    sharpness: float = 200.0


@dataclass(frozen=True, slots=True, eq=False)
class Print:
    """What is printed on a skin.

    Attributes:
        pattern: Where: float32 in 0..1, shape (256, 256).
        colour: Linear: float32, shape (3,), or (256, 256, 3) for a print of many colours.
    """

    pattern: Floats
    colour: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A body of revolution around an axis in the picture's plane, and what its skin is like.

    Attributes:
        x: Centre in pixels.
        y: Centre in pixels.
        radius: Half width in pixels.
        tilt: Of the axis in radians, clockwise on the screen; at 0 its end points down.
        profile: Its outline.
        colour: Linear.
        gloss: Strength of reflections; 1 is latex, 0 is skin or cloth.
        opacity: How much of what is behind it the middle hides.
        printed: Print on the skin, if there is one.
        softness_px: Sigma of its blur, for what is out of focus.
        shines: Gives light of its own instead of being lit.
    """

    x: float
    y: float
    radius: float
    tilt: float
    profile: Profile
    colour: Floats
    gloss: float = 1.0
    opacity: float = 1.0
    printed: Print | None = None
    softness_px: float = 0.0
    shines: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Foil:
    """A flat foil balloon, puffed up between its two sheets.

    Attributes:
        outline: float64, shape (K, 2), in half-widths around the centre.
    """

    x: float
    y: float
    radius: float
    tilt: float
    outline: npt.NDArray[np.float64]
    colour: Floats
    printed: Print | None = None
    softness_px: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """Something to lay over a picture.

    Attributes:
        place: Rows and columns of the picture.
        light: Linear, already weighted by ``opacity``: float32, shape (h, w, 3).
        coverage: Share of each pixel that lies inside the outline: float32, shape (h, w).
        opacity: Share of the background that is hidden: float32, shape (h, w).
    """

    place: tuple[slice, slice]
    light: Floats
    coverage: Floats
    opacity: Floats


def sphere_profile(*, stretch: float = 1.0, dent: float = 0.0) -> Profile:
    """A ball; ``stretch`` makes it longer, ``dent`` gives an apple's hollows at the poles."""
    angle = np.linspace(0, np.pi, 201)
    along = -np.cos(angle) * stretch
    return along, np.sin(angle) ** (1 - dent)


def balloon_profile(*, length: float, taper: float, with_knot: bool) -> Profile:
    """A latex balloon.

    Args:
        length: Half the length of the body in half-widths; near 1 it is seen from its end.
        taper: How much slimmer it gets towards the knot; 0 is an egg without an end.
        with_knot: Whether the knot is in sight.
    """
    u = np.linspace(-1, 1.12, 401)
    body = np.sqrt(np.clip(1 - u**2, 0, 1)) * (1 - taper * np.clip(u, 0, 1) ** 1.6)
    if with_knot:
        knot = np.interp(
            u, [0.95, 0.975, 1.01, 1.05, 1.09, 1.115, 1.12], [0, 0.07, 0.045, 0.075, 0.10, 0.07, 0]
        )
        body = np.maximum(body, knot)
    return u * length, body


def render_body(body: Body, size: tuple[int, int], light: Light) -> Sprite | None:
    """Shade a body; None where it lies outside the picture."""
    along, profile = body.profile
    reach = body.radius * max(abs(along[0]), abs(along[-1]), 1.0) + 2 + 3 * body.softness_px
    place = _place(body.x, body.y, reach, size)
    if place is None:
        return None
    x, y = _own_axes(place, (body.x, body.y), body.tilt, body.radius)
    radius = _lookup(y, along, profile)
    slope = _lookup(y, along, np.gradient(profile, along))
    # Distance to the outline in pixels, to first order.
    edge = (radius - np.abs(x)) * body.radius / np.sqrt(1 + np.minimum(slope**2, 25))
    coverage = np.clip(edge + 0.5, 0, 1) * (radius > 0)

    z = np.sqrt(np.clip(radius**2 - x**2, 0, None))
    length = np.sqrt(radius**2 * (1 + slope**2)) + 1e-4
    normal = _rotate(x / length, -radius * slope / length, z / length, body.tilt)
    colour = _printed_colour(body.colour, body.printed, x / (radius + 1e-4), y, along)
    if body.shines:
        shade = colour * (0.6 + 0.4 * normal[..., 2:])
    else:
        shade = _shade(normal, colour, light, gloss=body.gloss)
        if body.gloss >= 0.7:  # the knot and the neck hold many layers of latex
            shade *= np.where(y > 0.99 * along[-1] / 1.12, 0.6, 1).astype(np.float32)[..., None]
    # Towards the rim the line of sight runs a longer way through the skin.
    facing = normal[..., 2]
    opacity = coverage * (1 - (1 - body.opacity) * facing)
    return _soften(place, shade, coverage, opacity, body.softness_px)


def render_foil(foil: Foil, size: tuple[int, int], light: Light) -> Sprite | None:
    """Shade a foil balloon: a pillow with a flat seam and folds that run inwards from it."""
    place = _place(foil.x, foil.y, foil.radius * 1.5 + 2 + 3 * foil.softness_px, size)
    if place is None:
        return None
    side = int(np.clip(foil.radius * 2, 48, 192))
    scale = side / 3.0
    canvas = np.zeros((side, side), dtype=np.uint8)
    points = np.round((foil.outline * scale + side / 2) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA, shift=4)
    inside = np.asarray(cv2.distanceTransform((canvas > 127).astype(np.uint8), cv2.DIST_L2, 5))
    seam = 0.05 * scale
    depth = np.clip((inside - seam) / (0.55 * scale), 0, 1)
    pillow = 0.62 * np.sqrt(1 - (1 - depth) ** 2)
    height = blur(pillow.astype(np.float32), 0.02 * side)
    rows, columns = np.mgrid[:side, :side].astype(np.float32) / scale - 1.5
    folds = np.sin(np.arctan2(rows, columns) * 34 + 3 * np.sin(9 * columns))
    height += (0.05 * folds * np.exp(-7 * depth) * (depth > 0)).astype(np.float32)
    dy, dx = np.gradient(blur(height, 0.6) * scale)
    flat = np.dstack((canvas.astype(np.float32) / 255, dx, dy)).astype(np.float32)

    x, y = _own_axes(place, (foil.x, foil.y), foil.tilt, foil.radius)
    on_map = ((x + 1.5) * scale - 0.5, (y + 1.5) * scale - 0.5)
    flat = np.asarray(cv2.remap(flat, *on_map, cv2.INTER_LINEAR))
    steep = foil.radius / scale
    coverage = np.clip((flat[..., 0] - 0.5) * max(steep, 1.0) + 0.5, 0, 1)
    length = np.sqrt(1 + flat[..., 1] ** 2 + flat[..., 2] ** 2)
    normal = _rotate(-flat[..., 1] / length, -flat[..., 2] / length, 1 / length, foil.tilt)
    extent = np.array([-1.0, 1.0])
    colour = _printed_colour(foil.colour, foil.printed, np.clip(x, -1, 1), y, extent)
    shade = _shade(normal, colour, light, gloss=1.0, is_metal=True)
    return _soften(place, shade, coverage, coverage, foil.softness_px)


def _place(x: float, y: float, reach: float, size: tuple[int, int]) -> tuple[slice, slice] | None:
    top, bottom = np.clip((np.floor(y - reach), np.ceil(y + reach)), 0, size[0]).astype(int)
    left, right = np.clip((np.floor(x - reach), np.ceil(x + reach)), 0, size[1]).astype(int)
    if bottom <= top or right <= left:
        return None
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _own_axes(
    place: tuple[slice, slice], centre: tuple[float, float], tilt: float, radius: float
) -> tuple[Floats, Floats]:
    """Coordinates of the pixels' centres along a body's own axes, in its half-widths."""
    py = ((np.arange(place[0].start, place[0].stop) + 0.5 - centre[1]) / radius)[:, None]
    px = ((np.arange(place[1].start, place[1].stop) + 0.5 - centre[0]) / radius)[None]
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return (px * cosine + py * sine).astype(np.float32), (py * cosine - px * sine).astype(
        np.float32
    )


def _rotate(x: Floats, y: Floats, z: Floats, tilt: float) -> Floats:
    """From a body's own axes to the picture's: float32, shape (h, w, 3)."""
    cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    return np.stack((x * cosine - y * sine, x * sine + y * cosine, z), axis=-1)


def _lookup(
    values: Floats, along: npt.NDArray[np.float64], table: npt.NDArray[np.float64]
) -> Floats:
    """Linear interpolation in a table, zero outside."""
    return np.interp(values, along, table, left=0, right=0).astype(np.float32)


def _printed_colour(
    colour: Floats,
    printed: Print | None,
    across: Floats,
    y: Floats,
    along: npt.NDArray[np.float64],
) -> Floats:
    if printed is None:
        return colour
    side = len(printed.pattern) - 1
    longitude = np.arcsin(np.clip(across, -1, 1)) / np.pi + 0.5
    latitude = (y - along[0]) / (along[-1] - along[0])
    return np.asarray(
        cv2.remap(
            blend(colour, printed.colour, printed.pattern),
            (longitude * side).astype(np.float32),
            (np.clip(latitude, 0, 1) * side).astype(np.float32),
            cv2.INTER_LINEAR,
        )
    )


def _shade(
    normal: Floats, colour: Floats, light: Light, *, gloss: float, is_metal: bool = False
) -> Floats:
    """Light that a skin sends to the viewer: float32, shape (h, w, 3)."""
    facing = normal[..., 2]
    to_lamp = normal @ light.direction
    up = (0.5 - 0.5 * normal[..., 1])[..., None]
    ambient = light.below + (light.above - light.below) * up
    direct = np.clip((to_lamp + 0.25) / 1.25, 0, None)[..., None] * light.direct
    mirrored_y = 2 * facing * normal[..., 1]
    mirrored_x = 2 * facing * normal[..., 0]
    entry = np.clip((0.5 - 0.5 * mirrored_y) * 255, 0, 255).astype(np.uint8)
    mirrored = light.mirror[entry]
    for x, y, half_width, half_height, strength in light.windows:
        pane = smoothstep(half_width - np.abs(mirrored_x - x), -0.03, 0.03) * smoothstep(
            half_height - np.abs(mirrored_y - y), -0.03, 0.03
        )
        mirrored = mirrored + (strength * pane * (facing > 0.2))[..., None]
    for x, y, radius, strength in light.bulbs:
        disc = smoothstep(radius - np.hypot(mirrored_x - x, mirrored_y - y), -0.02, 0.02)
        mirrored = mirrored + (strength * disc)[..., None]
    spot = np.clip(2 * facing * to_lamp - light.direction[2], 0, 1)
    if is_metal:
        shine = colour * (1.6 * mirrored + 1.6 * spot[..., None] ** 12 * light.direct)
        return np.asarray(0.25 * colour * (ambient + direct) + shine, dtype=np.float32)
    shade = colour * (0.75 * direct + 0.6 * ambient)
    if gloss > 0:
        fresnel = (0.04 + 0.55 * (1 - facing) ** 5)[..., None] * gloss
        lobe = 0.9 * spot**light.sharpness + 0.10 * spot ** (0.1 * light.sharpness)
        shade = shade + fresnel * mirrored + gloss * lobe[..., None] * light.direct
    return np.asarray(shade, dtype=np.float32)


def _soften(
    place: tuple[slice, slice],
    shade: Floats,
    coverage: Floats,
    opacity: Floats,
    softness_px: float,
) -> Sprite:
    light: Floats = shade * opacity[..., None]
    if softness_px > 0.3:
        light = blur(light, softness_px)
        coverage, opacity = blur(coverage, softness_px), blur(opacity, softness_px)
    return Sprite(
        place, light.astype(np.float32), coverage.astype(np.float32), opacity.astype(np.float32)
    )
