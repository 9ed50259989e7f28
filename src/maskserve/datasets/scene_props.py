"""Things in computed pictures that are no balloons, some of them much like balloons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from maskserve.datasets.rendering import Floats, blend, blur, rgb
from maskserve.datasets.scene_backdrops import Backdrop, linear, random_colour
from maskserve.datasets.scene_bodies import Body, Print, Sprite, render_body, sphere_profile

__all__ = ["PrintKind", "make_picture", "make_print", "make_prop", "render_person"]

Pattern = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Size = tuple[int, int]
PrintKind = Literal["dots", "face", "patches", "ribs", "seams", "stars", "stripes", "swirl", "text"]

_PRINT_SIDE = 256

_SKIN = ((245, 205, 180), (225, 180, 150), (190, 140, 105), (140, 95, 70), (90, 60, 45))
_HAIR = ((30, 22, 18), (60, 40, 25), (110, 75, 40), (205, 170, 110), (130, 130, 130))


def make_prop(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> tuple[Sprite, ...]:
    """One thing, or a few that belong together, at a place where they may be found."""
    kinds: list[Callable[[tuple[int, int], Backdrop, np.random.Generator], list[Sprite | None]]]
    kinds = [_lamp, _leaves]
    if backdrop.ground is not None:
        kinds += [_ball, _ball, _fruit, _sign, _flowers, _umbrella, _pole]
    if backdrop.is_indoors:
        kinds += [_lantern, _fruit, _disc, _disc]
    made = kinds[rng.integers(len(kinds))](size, backdrop, rng)
    return tuple(sprite for sprite in made if sprite is not None)


def render_person(
    spot: tuple[float, float],
    height: float,
    *,
    backdrop: Backdrop,
    size: Size,
    rng: np.random.Generator,
) -> tuple[Sprite, ...]:
    """The parts, the furthest first, of somebody who stands at ``spot`` with a hand up."""
    x, foot = spot
    unit = height / 8  # a grown-up is seven to eight heads tall
    skin = linear(*_SKIN[rng.integers(len(_SKIN))])
    shirt = random_colour(rng, saturation=(0.0, 0.9), value=(0.08, 0.9))
    trousers = random_colour(rng, saturation=(0.0, 0.6), value=(0.05, 0.6))
    side = rng.choice([-1, 1])
    shoulder = foot - 6.4 * unit
    hip = foot - 3.8 * unit
    hand = (x + side * unit * rng.uniform(0.8, 2.0), shoulder + unit * rng.uniform(-1.5, 2.0))
    elbow = (x + side * 1.4 * unit, shoulder + 1.3 * unit)

    def limb(path: Sequence[tuple[float, float]], width: float, colour: Floats) -> Sprite | None:
        return _clothe(_flat([_thicken(np.array(path), width)], colour * brightness, size), rng)

    lit = backdrop.light.direct * 0.35 + 0.5 * (backdrop.light.above + backdrop.light.below)
    brightness = np.maximum(lit, 0.02).astype(np.float32)
    torso = np.array(
        [
            (x - 0.45 * unit, shoulder - 0.2 * unit),
            (x + 0.45 * unit, shoulder - 0.2 * unit),
            (x + 0.95 * unit, shoulder + 0.15 * unit),
            (x + 0.75 * unit, hip + 0.3 * unit),
            (x - 0.75 * unit, hip + 0.3 * unit),
            (x - 0.95 * unit, shoulder + 0.15 * unit),
        ]
    )
    hair_colour = (
        random_colour(rng, saturation=(0.6, 1), value=(0.5, 1))  # a cap or a helmet
        if rng.random() < 0.3
        else linear(*_HAIR[rng.integers(len(_HAIR))])
    )
    rows, columns = np.mgrid[0:1:256j, -1:1:256j].astype(np.float32)
    turn, line = rng.uniform(-1.4, 1.4), rng.uniform(0.25, 0.55)
    hair = (rows + 0.25 * np.abs(columns - turn) < line).astype(np.float32)
    head = Body(
        x,
        shoulder - 0.85 * unit,
        0.47 * unit,
        rng.uniform(-0.2, 0.2),
        sphere_profile(stretch=1.3),
        skin,
        gloss=0.0,
        printed=Print(hair, hair_colour),
    )
    parts = (
        limb([(x - 0.35 * unit, hip), (x - 0.4 * unit, foot)], 0.62 * unit, trousers),
        limb([(x + 0.35 * unit, hip), (x + 0.45 * unit, foot)], 0.62 * unit, trousers),
        limb(
            [(x - side * 0.85 * unit, shoulder + 0.2 * unit), (x - side * 1.1 * unit, hip)],
            0.42 * unit,
            shirt,
        ),
        limb([(x, shoulder - 0.7 * unit), (x, shoulder)], 0.4 * unit, skin),
        _clothe(_flat([torso], shirt * brightness, size), rng),
        render_body(head, size, backdrop.light),
        limb([(x + side * 0.8 * unit, shoulder + 0.2 * unit), elbow], 0.42 * unit, shirt),
        limb([elbow, hand], 0.32 * unit, skin if rng.random() < 0.6 else shirt),
    )
    return tuple(part for part in parts if part is not None)


def make_print(kind: PrintKind, colour: Floats, rng: np.random.Generator) -> Print:
    """What is printed on a balloon or a ball, and the pattern of some other skins."""
    pattern = np.zeros((_PRINT_SIDE, _PRINT_SIDE), dtype=np.uint8)
    _PRINTERS[kind](pattern, rng)
    return Print(pattern.astype(np.float32) / 255, colour)


def make_picture(rng: np.random.Generator) -> Print:
    """A print of many colours, as on foil balloons: a ground, a border, and signs laid over it."""
    bold = [
        random_colour(rng, saturation=(0.5, 1.0), value=(0.3, 1.0))
        for _ in range(rng.integers(1, 4))
    ]
    inks = [*bold, linear(15, 15, 18), linear(245, 245, 240)]

    def ink() -> Floats:
        return inks[rng.integers(len(inks))]

    colour = np.empty((_PRINT_SIDE, _PRINT_SIDE, 3), dtype=np.float32)
    colour[:] = ink()
    y, x = np.mgrid[-1:1:256j, -1:1:256j].astype(np.float32)
    # The rows of a print are heights; its columns, seen from the front, are longitudes.
    across = np.sin(x * np.pi / 2) * np.sqrt(1 - y**2)
    border = rng.uniform(0.6, 0.95)
    if rng.random() < 0.6:
        colour[np.hypot(across, y) > border] = ink()
    kinds: list[PrintKind] = ["dots", "face", "stars", "stripes", "swirl", "text", "text"]
    for _ in range(rng.integers(2, 6)):
        if rng.random() < 0.4:  # a medal, an eye, a cake
            middle, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.6)
            colour[np.hypot(across - middle[0], y - middle[1]) < radius] = ink()
        else:
            layer = make_print(kinds[rng.integers(len(kinds))], ink(), rng)
            turned = np.rot90(layer.pattern, rng.choice([0, 0, 0, 1, 3]))
            colour = blend(colour, layer.colour, turned)
    pattern = np.full((_PRINT_SIDE, _PRINT_SIDE), rng.uniform(0.7, 1.0), dtype=np.float32)
    return Print(pattern, colour)


def _print_dots(pattern: Pattern, rng: np.random.Generator) -> None:
    pitch = int(rng.integers(24, 64))
    for row, y in enumerate(range(0, _PRINT_SIDE, pitch)):
        for x in range((row % 2) * pitch // 2, _PRINT_SIDE, pitch):
            cv2.circle(pattern, (x, y), round(pitch * 0.24), 255, -1, cv2.LINE_AA)


def _print_stars(pattern: Pattern, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(10, 60)):
        star = _star(rng.uniform(4, 14), 5, 0.42)
        _fill(pattern, [star + rng.uniform(0, _PRINT_SIDE, 2)])


def _print_text(pattern: Pattern, rng: np.random.Generator) -> None:
    for row in range(rng.integers(1, 4)):
        text = "".join(chr(letter) for letter in rng.integers(65, 91, rng.integers(2, 8)))
        spot = (int(rng.integers(50, 110)), 90 + 45 * row)
        font, scale = int(rng.integers(0, 5)), rng.uniform(0.7, 1.6)
        cv2.putText(pattern, text, spot, font, scale, 255, 4, cv2.LINE_AA)


def _print_face(pattern: Pattern, rng: np.random.Generator) -> None:
    apart = int(rng.integers(22, 36))
    for x in (128 - apart, 128 + apart):
        cv2.ellipse(pattern, (x, 95), (9, 16), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(pattern, (128, 120), (48, 42), 0, 15, 165, 255, 7, cv2.LINE_AA)


def _print_stripes(pattern: Pattern, rng: np.random.Generator) -> None:
    pitch = int(rng.integers(24, 60))
    for x in range(0, _PRINT_SIDE, 2 * pitch):
        pattern[:, x : x + pitch] = 255


def _print_ribs(pattern: Pattern, rng: np.random.Generator) -> None:
    for y in range(0, _PRINT_SIDE, int(rng.integers(10, 22))):
        pattern[y : y + 2] = 255


def _print_seams(pattern: Pattern, rng: np.random.Generator) -> None:
    """A basketball's."""
    for x in (40, 128, 216):
        cv2.line(pattern, (x, 0), (x, 255), 255, 4, cv2.LINE_AA)
    y = int(rng.integers(100, 156))
    cv2.line(pattern, (0, y), (255, y), 255, 4, cv2.LINE_AA)


def _print_patches(pattern: Pattern, rng: np.random.Generator) -> None:
    """A football's."""
    radius = rng.uniform(22, 30)
    for spot in ((128, 128), (50, 60), (206, 60), (50, 200), (206, 200), (128, 20)):
        _fill(pattern, [_star(radius, 5, 0.82) + np.array(spot)])


def _print_swirl(pattern: Pattern, rng: np.random.Generator) -> None:
    """Marble, or an apple's cheek."""
    coarse = rng.random((5, 4), dtype=np.float32)
    smooth = cv2.resize(coarse, pattern.shape, interpolation=cv2.INTER_CUBIC)
    pattern[:] = np.clip((np.asarray(smooth) - 0.4) * 4, 0, 1) * 255


_PRINTERS: dict[PrintKind, Callable[[Pattern, np.random.Generator], None]] = {
    "dots": _print_dots,
    "face": _print_face,
    "patches": _print_patches,
    "ribs": _print_ribs,
    "seams": _print_seams,
    "stars": _print_stars,
    "stripes": _print_stripes,
    "swirl": _print_swirl,
    "text": _print_text,
}


def _ball(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A ball that lies on the ground."""
    x, foot, scale = _stand(size, backdrop, rng)
    radius = max(scale * rng.uniform(0.05, 0.13), 3)
    white = linear(235, 235, 230)
    hot = random_colour(rng, saturation=(0.7, 1), value=(0.4, 1))
    colour, printed = (
        (white, make_print("patches", linear(20, 20, 22), rng)),
        (linear(200, 95, 40), make_print("seams", linear(25, 20, 18), rng)),
        (white, make_print("stripes", hot, rng)),
        (hot, None),
    )[rng.integers(4)]
    ball = Body(
        x,
        foot - radius,
        radius,
        rng.uniform(0, 6.3),
        sphere_profile(),
        colour,
        gloss=float(rng.uniform(0, 0.6)),
        printed=printed,
    )
    return [_shadow(x, foot, radius, size), render_body(ball, size, backdrop.light)]


def _fruit(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """Apples, oranges or tomatoes, side by side."""
    x, foot, scale = _stand(size, backdrop, rng)
    radius = max(scale * rng.uniform(0.02, 0.06), 3)
    parts: list[Sprite | None] = []
    for i in range(rng.integers(1, 6)):
        choice = [(190, 30, 35), (225, 190, 50), (140, 185, 60), (240, 140, 30), (200, 50, 30)]
        colour = linear(*choice[rng.integers(len(choice))])
        own = radius * rng.uniform(0.85, 1.1)
        cx, cy = x + 1.8 * i * radius, foot - own - rng.uniform(0, 0.4) * own
        fruit = Body(
            cx,
            cy,
            own,
            rng.uniform(-0.4, 0.4),
            sphere_profile(stretch=0.88, dent=0.25),
            colour,
            gloss=float(rng.uniform(0.1, 0.6)),
            printed=make_print("swirl", colour * 1.6, rng),
        )
        stem = _thicken(
            np.array([(cx, cy - 0.7 * own), (cx + 0.2 * own, cy - 1.25 * own)]), 0.14 * own
        )
        parts += [_shadow(cx, foot, own, size), render_body(fruit, size, backdrop.light)]
        parts.append(_flat([stem], linear(70, 50, 30), size))
    return parts


def _lamp(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A glowing globe that hangs on a cord or stands on a post."""
    short = min(size)
    x, y = rng.uniform(0, size[1]), rng.uniform(0, 0.5) * size[0]
    radius = max(short * rng.uniform(0.01, 0.06), 2.5)
    hangs = backdrop.is_indoors or rng.random() < 0.3
    end = -10.0 if hangs else float(backdrop.ground or size[0])
    post = _thicken(np.array([(x, y), (x, end)]), max(0.2 * radius, 1.2))
    warm = rgb(1.0, rng.uniform(0.8, 1.0), rng.uniform(0.5, 0.95)) * rng.uniform(0.9, 3)
    globe = Body(
        x,
        y,
        radius,
        0.0,
        sphere_profile(stretch=rng.uniform(0.9, 1.5)),
        warm,
        gloss=0.0,
        shines=True,
    )
    cap = np.array([(-0.4, -1.5), (0.4, -1.5), (0.55, -0.8), (-0.55, -0.8)]) * radius + (x, y)
    return [
        _flat([post], linear(40, 40, 42), size),
        render_body(globe, size, backdrop.light),
        _flat([cap], linear(60, 58, 55), size),
    ]


def _lantern(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A ribbed paper lantern under the ceiling."""
    x, y = rng.uniform(0, size[1]), rng.uniform(0.0, 0.35) * size[0]
    radius = min(size) * rng.uniform(0.04, 0.13)
    colour = random_colour(rng, saturation=(0.0, 0.8), value=(0.7, 1.0))
    paper = Body(
        x,
        y,
        radius,
        0.0,
        sphere_profile(stretch=rng.uniform(0.7, 0.95)),
        colour * 0.9,
        gloss=0.0,
        printed=make_print("ribs", colour * 0.35, rng),
        shines=True,
    )
    cord = _thicken(np.array([(x, y - 0.8 * radius), (x, -10.0)]), 1.5)
    cap = np.array([(-0.25, -1.02), (0.25, -1.02), (0.25, -0.75), (-0.25, -0.75)]) * radius + (x, y)
    return [
        _flat([cord], linear(40, 40, 40), size),
        render_body(paper, size, backdrop.light),
        _flat([cap], linear(50, 45, 40), size),
    ]


def _disc(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A flat disc on a wall: a plate, a clock, a paper circle; some have a rim."""
    x, y = rng.uniform(0, size[1]), rng.uniform(0, 0.8) * size[0]
    radius = min(size) * rng.uniform(0.015, 0.09)
    squeeze = rng.uniform(0.6, 1.0)
    colour = random_colour(rng, saturation=(0.0, 1), value=(0.3, 1)) * _brightness(backdrop)
    parts = [_flat([_ellipse(x, y, radius * squeeze, radius)], colour, size)]
    if rng.random() < 0.6:
        inner = random_colour(rng, saturation=(0.0, 1), value=(0.2, 1)) * _brightness(backdrop)
        share = rng.uniform(0.4, 0.85)
        parts.append(_flat([_ellipse(x, y, share * radius * squeeze, share * radius)], inner, size))
    return parts


def _sign(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A round traffic sign on a pole."""
    x, foot, scale = _stand(size, backdrop, rng)
    radius = max(scale * rng.uniform(0.04, 0.10), 3)
    y = foot - radius * rng.uniform(4, 8)
    bright = _brightness(backdrop)
    red, white, blue = (
        linear(*c) * bright for c in ((200, 30, 35), (240, 240, 240), (20, 70, 160))
    )
    outer, inner = ((red, white), (blue, blue), (red, red), (white, red))[rng.integers(4)]
    bar = np.array([(-0.65, -0.14), (0.65, -0.14), (0.65, 0.14), (-0.65, 0.14)]) * radius + (x, y)
    pole = _thicken(np.array([(x, y), (x, foot)]), 0.16 * radius)
    return [
        _flat([pole], linear(130, 130, 132) * bright, size),
        _flat([_ellipse(x, y, radius, radius)], outer, size),
        _flat([_ellipse(x, y, 0.8 * radius, 0.8 * radius)], inner, size),
        _flat([bar], white if inner is not white else linear(20, 20, 20), size),
    ]


def _flowers(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """Blossoms on stems."""
    x, foot, scale = _stand(size, backdrop, rng)
    bright = _brightness(backdrop)
    colour = random_colour(rng, saturation=(0.4, 1), value=(0.5, 1)) * bright
    parts: list[Sprite | None] = []
    for _ in range(rng.integers(2, 12)):
        radius = max(scale * rng.uniform(0.012, 0.035), 2)
        cx, cy = x + rng.normal(0, 0.08) * scale, foot - rng.uniform(0.04, 0.2) * scale
        stem = _thicken(np.array([(cx, cy), (x, foot)]), max(0.2 * radius, 1))
        petals = _star(radius, int(rng.integers(5, 9)), rng.uniform(0.5, 0.85)) + np.array((cx, cy))
        parts.append(_flat([stem], linear(60, 110, 45) * bright, size))
        parts.append(_flat([petals], colour * rng.uniform(0.7, 1.1), size))
        parts.append(
            _flat([_ellipse(cx, cy, 0.3 * radius, 0.3 * radius)], linear(230, 190, 40), size)
        )
    return parts


def _umbrella(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    x, foot, scale = _stand(size, backdrop, rng)
    radius = scale * rng.uniform(0.1, 0.3)
    y = foot - radius * rng.uniform(1.5, 2.5)
    colour = random_colour(rng, saturation=(0.1, 1), value=(0.3, 1)) * _brightness(backdrop)
    angle = np.linspace(np.pi, 2 * np.pi, 25)
    parts: list[Sprite | None] = [
        _flat(
            [_thicken(np.array([(x, y - radius * 0.5), (x, foot)]), max(0.03 * radius, 1.2))],
            linear(90, 80, 70),
            size,
        )
    ]
    for i in range(6):  # gores, in turn lighter and darker
        arc = angle[4 * i : 4 * i + 5]
        gore = np.column_stack((x + radius * np.cos(arc), y + 0.55 * radius * np.sin(arc)))
        gore = np.vstack((gore, [(x + 0.3 * radius * np.cos(arc.mean()), y)]))
        parts.append(_flat([gore], colour * (1.0 if i % 2 else 0.75), size))
    return parts


def _pole(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A post or a trunk through the whole height."""
    x = rng.uniform(0, size[1])
    width = min(size) * rng.uniform(0.008, 0.06)
    lean = rng.normal(0, 0.03) * size[1]
    colour = random_colour(rng, saturation=(0.0, 0.4), value=(0.1, 0.6)) * _brightness(backdrop)
    foot = float(backdrop.ground or size[0]) + 0.1 * size[0]
    return [_flat([_thicken(np.array([(x + lean, -10.0), (x, foot)]), width)], colour, size)]


def _leaves(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> list[Sprite | None]:
    """A twig with leaves that reaches into the picture from its border."""
    height, width = size
    short = min(size)
    start = np.array([rng.choice([-0.02, 1.02]) * width, rng.uniform(0, 0.6) * height])
    end = start + np.array([np.sign(width / 2 - start[0]), rng.uniform(-0.6, 0.6)]) * (
        short * rng.uniform(0.15, 0.45)
    )
    colour = linear(*[(50, 85, 30), (80, 105, 35), (150, 110, 30), (35, 60, 30)][rng.integers(4)])
    colour = colour * _brightness(backdrop)
    parts = [_flat([_thicken(np.array([start, end]), short * 0.008)], linear(60, 45, 30), size)]
    for share in rng.uniform(0.1, 1, rng.integers(8, 26)):
        spot = start + share * (end - start) + rng.normal(0, 0.02, 2) * short
        leaf = _ellipse(0, 0, short * rng.uniform(0.012, 0.04), short * rng.uniform(0.006, 0.016))
        turn = rng.uniform(0, np.pi)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        parts.append(_flat([leaf @ matrix + spot], colour * rng.uniform(0.6, 1.3), size))
    return parts


def _stand(size: Size, backdrop: Backdrop, rng: np.random.Generator) -> tuple[float, float, float]:
    """A place on the ground (x, y), and how large a unit is there: near is large."""
    height, width = size
    ground = backdrop.ground if backdrop.ground is not None else round(0.75 * height)
    depth = rng.uniform(0.05, 1)
    scale = min(size) * (0.25 + 1.0 * depth)
    return rng.uniform(0, width), ground + depth * (height - ground), scale


def _brightness(backdrop: Backdrop) -> Floats:
    """How a white, upright and dull surface looks."""
    light = backdrop.light
    return np.maximum(0.45 * light.direct + 0.4 * (light.above + light.below), 0.02)


def _clothe(sprite: Sprite | None, rng: np.random.Generator) -> Sprite | None:
    """Give something flat the shading of a rounded form, and folds."""
    if sprite is None:
        return None
    height, width = sprite.coverage.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(rng.choice([-1, 1]))
    coarse = rng.random((max(height // 24, 2), max(width // 10, 3)), dtype=np.float32)
    folds = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    tone = 1.0 + 0.25 * across - 0.3 * across**2 + 0.7 * (folds - 0.5)
    return Sprite(
        sprite.place,
        sprite.light * np.clip(tone, 0.1, None)[..., None],
        sprite.coverage,
        sprite.opacity,
    )


def _shadow(x: float, foot: float, radius: float, size: Size) -> Sprite | None:
    return _flat(
        [_ellipse(x + 0.2 * radius, foot, 1.1 * radius, 0.3 * radius)],
        rgb(0, 0, 0),
        size,
        opacity=0.5,
        softness_px=max(0.12 * radius, 0.5),
    )


def _flat(
    outlines: Sequence[Points],
    colour: Floats,
    size: Size,
    *,
    opacity: float = 1.0,
    softness_px: float = 0.0,
) -> Sprite | None:
    """Something flat of one colour; None where it lies outside the picture."""
    margin = 2 + 3 * softness_px
    corners = np.concatenate(outlines)
    low = np.floor(corners.min(axis=0) - margin)
    high = np.ceil(corners.max(axis=0) + margin)
    left, top = np.clip(low, 0, (size[1], size[0])).astype(int).tolist()
    right, bottom = np.clip(high, 0, (size[1], size[0])).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    layer = np.zeros((bottom - top, right - left), dtype=np.uint8)
    _fill(layer, [outline - (left + 0.5, top + 0.5) for outline in outlines])
    coverage = layer.astype(np.float32) * np.float32(opacity / 255)
    if softness_px > 0.3:
        coverage = blur(coverage, softness_px)
    light = (coverage[..., None] * colour).astype(np.float32)
    return Sprite((slice(top, bottom), slice(left, right)), light, coverage, coverage)


def _fill(layer: npt.NDArray[np.uint8], outlines: Sequence[Points]) -> None:
    fixed = [np.round(outline * 16).astype(np.int32) for outline in outlines]
    cv2.fillPoly(layer, fixed, 255, cv2.LINE_AA, shift=4)


def _thicken(path: Points, width: float) -> Points:
    """The outline of a line of a width through two points or more."""
    steps = np.gradient(path, axis=0)
    across = np.column_stack((-steps[:, 1], steps[:, 0]))
    across *= width / 2 / (np.hypot(*across.T)[:, None] + 1e-9)
    return np.vstack((path + across, (path - across)[::-1]))


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.column_stack((x + rx * np.cos(angle), y + ry * np.sin(angle)))


def _star(radius: float, points: int, inner: float) -> Points:
    """Around (0, 0), its inner corners at ``inner`` times the radius."""
    angle = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False) - np.pi / 2
    length = np.where(np.arange(2 * points) % 2, inner, 1.0) * radius
    return np.column_stack((length * np.cos(angle), length * np.sin(angle)))
