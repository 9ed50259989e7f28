"""Broken images: rendered pictures in every form that JPEG, PNG and WebP have, and mutations.

Mutation ``index`` of a seed is always the same bytes, so that a number is all that it takes to
see a failure again.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from maskserve.datasets.synthetic import render_shapes

Pixels = npt.NDArray[Any]

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"


@cache
def sound_images() -> dict[str, bytes]:
    """Small pictures by name, one for each way in which the formats store pixels."""
    pixels, _ = render_shapes(size=(40, 56), count=3, seed=1)
    rgb = Image.fromarray(pixels)
    rgba = rgb.copy()
    rgba.putalpha(rgb.getchannel("G"))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = _exif(orientation=6)
    thumbnail = _saved(rgb.resize((16, 12)), "JPEG")
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "rendered")
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="8"/>', zip=True)
    return {
        "jpeg-baseline": _saved(rgb, "JPEG", quality=80),
        "jpeg-444": _saved(rgb, "JPEG", quality=95, subsampling=0),
        "jpeg-progressive": _saved(rgb, "JPEG", progressive=True),
        "jpeg-grey": _saved(rgb.convert("L"), "JPEG"),
        "jpeg-cmyk": _saved(rgb.convert("CMYK"), "JPEG"),
        "jpeg-restarts": _saved(rgb, "JPEG", restart_marker_rows=1),
        "jpeg-exif": _saved(rgb, "JPEG", exif=exif, icc_profile=icc),
        "jpeg-thumbnail": _with_thumbnail(_saved(rgb, "JPEG"), thumbnail),
        "jpeg-comment": _saved(rgb, "JPEG", comment=b"rendered", xmp=b'<x tiff:Orientation="3"/>'),
        "png-rgb": _saved(rgb, "PNG"),
        "png-rgba": _saved(rgba, "PNG"),
        "png-palette": _saved(rgb.quantize(32), "PNG", transparency=3),
        "png-1-bit": _saved(rgb.convert("1"), "PNG"),
        "png-grey-alpha": _saved(rgba.convert("LA"), "PNG"),
        "png-16-bit": _png_16_bit(pixels[..., 0]),
        "png-16-bit-rgb": _png_16_bit(pixels),
        "png-interlaced": _png_interlaced(pixels),
        "png-text": _saved(rgb, "PNG", pnginfo=text, icc_profile=icc, exif=exif),
        "png-animated": _saved(rgb, "PNG", save_all=True, append_images=frames),
        "webp-lossy": _saved(rgb, "WEBP"),
        "webp-lossless": _saved(rgb, "WEBP", lossless=True),
        "webp-alpha": _saved(rgba, "WEBP", exif=exif, icc_profile=icc),
        "webp-animated": _saved(rgb, "WEBP", save_all=True, append_images=frames),
    }


def bombs() -> dict[str, bytes]:
    """Small files by name that ask for much work or memory; none is a photo."""
    white = Image.new("L", (2000, 2000), 255)
    progressive = _saved(white, "JPEG", progressive=True)
    last_scan = progressive[progressive.rfind(b"\xff\xda") : -2]
    tiny = sound_images()
    exif_loop = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    return {
        "jpeg-many-scans": progressive[:-2] + last_scan * 20_000 + b"\xff\xd9",
        "jpeg-largest-size": _with_jpeg_size(tiny["jpeg-baseline"], 65500, 65500),
        "jpeg-many-segments": tiny["jpeg-baseline"][:2]
        + b"\xff\xe1\0\x08Exif\0\0" * 100_000
        + tiny["jpeg-baseline"][2:],
        "jpeg-exif-loop": _with_exif(tiny["jpeg-baseline"], exif_loop),
        "jpeg-only-start": JPEG,
        "png-largest-size": _with_chunk(tiny["png-rgb"], b"IHDR", _ihdr(2**31 - 1, 2**31 - 1)),
        "png-no-pixels": _with_chunk(tiny["png-rgb"], b"IHDR", _ihdr(0, 0)),
        "png-size-without-pixels": PNG + _chunk(b"IHDR", _ihdr(7000, 7000)) + _chunk(b"IEND", b""),
        "png-text-bomb": _after_header(
            tiny["png-rgb"], _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28), 9))
        ),
        "png-profile-bomb": _after_header(
            tiny["png-rgb"], _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**28), 9))
        ),
        "png-many-texts": _after_header(tiny["png-rgb"], _chunk(b"tEXt", b"a\0b") * 100_000),
        "png-more-pixels-than-declared": PNG
        + _chunk(b"IHDR", _ihdr(8, 8))
        + _chunk(b"IDAT", zlib.compress(bytes(2**28), 9))
        + _chunk(b"IEND", b""),
        "webp-largest-canvas": _with_webp_canvas(tiny["webp-alpha"], 2**24, 2**8 - 1),
        "webp-large-canvas": _with_webp_canvas(tiny["webp-animated"], 16384, 16384),
        "webp-many-frames": _webp_many_frames(5000),
    }


def mutation(seed: int, index: int) -> bytes:
    """A broken image: one to four mutations of a sound one."""
    rng = random.Random(f"{seed}/{index}")
    images = sound_images()
    data = images[rng.choice(list(images))]
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(_IMAGE_MUTATIONS)(data, rng) or data[:1]
    return data


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A mutation of any data, of which there must be some."""
    return rng.choice(_BYTE_MUTATIONS)(data, rng)


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    """Headers decide most, and most bytes are pixels."""
    return _flip_bits(data[:64], rng) + data[64:]


def _set_numbers(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        number = rng.choice((b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"\xff" * 4, b"\0" * 4))
        at = rng.randrange(len(changed))
        changed[at : at + len(number)] = number
    return bytes(changed)


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut_out(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.choices(range(len(data)), k=2))
    return data[:start] + data[stop:]


def _repeat_part(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.choices(range(len(data)), k=2))
    return data[:stop] + data[start:stop] * rng.choice((1, 2, 20)) + data[stop:]


def _insert_noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice((1, 4, 100))) + data[at:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    """The start of one file and the end of another."""
    other = rng.choice(list(sound_images().values()))
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def _change_segments(data: bytes, rng: random.Random) -> bytes:
    """Shuffle, drop, repeat, borrow or garble segments, whose lengths and checksums stay right."""
    kind = _format(data)
    if kind is None:
        return _flip_bits(data, rng)
    split, join = kind
    parts = split(data)
    other = rng.choice([image for image in sound_images().values() if _format(image) is kind])
    at = rng.randrange(len(parts))
    match rng.choice(("shuffle", "drop", "repeat", "borrow", "garble", "garble", "resize")):
        case "shuffle":
            rng.shuffle(parts)
        case "drop":
            del parts[at]
        case "repeat":
            parts[at:at] = [parts[at]] * rng.choice((1, 2, 50))
        case "borrow":
            parts.insert(at, rng.choice(split(other)))
        case "garble":
            name, payload = parts[at]
            if payload:
                parts[at] = name, rng.choice((_flip_bits, _set_numbers, _cut_out))(payload, rng)
        case "resize":
            name, payload = parts[at]
            parts[at] = name, payload[: rng.randrange(len(payload) + 1)] + bytes(rng.choice((0, 9)))
    return join(parts)


def _lie_about_length(data: bytes, rng: random.Random) -> bytes:
    """Change the length field of a segment."""
    kind = _format(data)
    if kind is None:
        return _truncate(data, rng)
    split, join = kind
    parts = split(data)
    before = len(join(parts[: rng.randrange(len(parts))]))
    lie = rng.choice((b"\0\0", b"\0\1", b"\xff\xff", rng.randbytes(2)))
    offset = {_JPEG_FORMAT: 2, _PNG_FORMAT: rng.choice((0, 2)), _WEBP_FORMAT: rng.choice((4, 6))}
    at = before + offset[kind]
    return data[:at] + lie + data[at + 2 :]


def _nonsense_size(data: bytes, rng: random.Random) -> bytes:
    """Another width and height in the header."""
    width, height = (rng.choice((0, 1, 2, 57, 255, 256, 8191, 16384, 65535)) for _ in range(2))
    kind = _format(data)
    if kind is _JPEG_FORMAT:
        return _with_jpeg_size(data, width, height)
    if kind is _PNG_FORMAT and len(data) > 33:
        header = struct.pack(">II", width, height) + data[24:29]
        return _with_chunk(data, b"IHDR", header)
    return _with_webp_canvas(data, max(1, width), max(1, height))


def _nonsense_exif(data: bytes, rng: random.Random) -> bytes:
    """EXIF with an orientation that is none, or that is no EXIF at all."""
    orientation = rng.choice((0, 2, 3, 5, 6, 8, 9, 255, -1, 65535))
    exif = bytearray(_exif(orientation=orientation & 0xFFFF).tobytes()[6:])
    if rng.random() < 0.7:
        exif = bytearray(rng.choice((_flip_bits, _set_numbers, _truncate))(bytes(exif), rng))
    if data.startswith(JPEG):
        return _with_exif(data, bytes(exif))
    if data.startswith(PNG):
        return _after_header(data, _chunk(b"eXIf", bytes(exif)))
    return data + b"EXIF" + struct.pack("<I", len(exif)) + bytes(exif)


_Mutation = Callable[[bytes, random.Random], bytes]

_BYTE_MUTATIONS: tuple[_Mutation, ...] = (
    _flip_bits,
    _flip_header_bits,
    _set_numbers,
    _truncate,
    _cut_out,
    _repeat_part,
    _insert_noise,
)

_IMAGE_MUTATIONS: tuple[_Mutation, ...] = (
    *_BYTE_MUTATIONS,
    _splice,
    _change_segments,
    _change_segments,
    _change_segments,
    _lie_about_length,
    _nonsense_size,
    _nonsense_exif,
)

Parts = list[tuple[bytes, bytes]]
"""Name and payload of each segment or chunk; what is in front of the first has the name ``""``."""


def _split_jpeg(data: bytes) -> Parts:
    parts = [(b"", data[:2])]
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda" and at + 4 <= len(data):
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        parts.append((data[at : at + 2], data[at + 4 : at + 2 + length]))
        at += 2 + max(2, length)
    return [*parts, (b"", data[at:])]  # scans have no length


def _join_jpeg(parts: Parts) -> bytes:
    return b"".join(
        name + struct.pack(">H", min(65535, len(payload) + 2)) + payload if name else payload
        for name, payload in parts
    )


def _split_png(data: bytes) -> Parts:
    parts = [(b"", data[:8])]
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _join_png(parts: Parts) -> bytes:
    return b"".join(_chunk(name, payload) if name else payload for name, payload in parts)


def _split_webp(data: bytes) -> Parts:
    parts = [(b"", data[:12])]
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        parts.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _join_webp(parts: Parts) -> bytes:
    data = b"".join(
        name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)
        if name
        else payload
        for name, payload in parts
    )
    return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]


_Format = tuple[Callable[[bytes], Parts], Callable[[Parts], bytes]]
_JPEG_FORMAT: _Format = (_split_jpeg, _join_jpeg)
_PNG_FORMAT: _Format = (_split_png, _join_png)
_WEBP_FORMAT: _Format = (_split_webp, _join_webp)


def _format(data: bytes) -> _Format | None:
    """How to split the data; None if a mutation before has left nothing to split."""
    if data.startswith(JPEG):
        return _JPEG_FORMAT
    if data.startswith(PNG):
        return _PNG_FORMAT
    if data.startswith(b"RIFF") and len(data) > 20:
        return _WEBP_FORMAT
    return None


def _saved(picture: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def _exif(*, orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "rendered"
    exif[ExifTags.Base.ExifOffset] = {ExifTags.Base.ExposureTime: 0.01}
    return exif


def _with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    payload = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def _with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """With EXIF whose second directory points at a whole JPEG, as cameras write it."""
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 44, 0x0202, 4, 1, len(thumbnail), 0)
    return _with_exif(jpeg, b"II*\0" + struct.pack("<IHI", 8, 0, 14) + second + thumbnail)


def _with_jpeg_size(jpeg: bytes, width: int, height: int) -> bytes:
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = jpeg.find(marker)
        if at > 0:
            return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]
    return jpeg


def _chunk(name: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(name + payload)
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", checksum)


def _ihdr(width: int, height: int) -> bytes:
    """Header of an 8-bit RGB picture."""
    return struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def _with_chunk(png: bytes, name: bytes, payload: bytes) -> bytes:
    parts = _split_png(png)
    return _join_png([(n, payload if n == name else p) for n, p in parts])


def _after_header(png: bytes, chunks: bytes) -> bytes:
    return png[:33] + chunks + png[33:]


def _png_16_bit(pixels: Pixels) -> bytes:
    _, data = cv2.imencode(".png", pixels.astype(np.uint16) * 257)
    return data.tobytes()


def _png_interlaced(pixels: Pixels) -> bytes:
    """Adam7, which Pillow reads but does not write."""
    height, width = pixels.shape[:2]
    starts_and_steps = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, step_y, step_x in starts_and_steps
        for row in pixels[top::step_y, left::step_x]
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )


def _with_webp_canvas(webp: bytes, width: int, height: int) -> bytes:
    """Another size in the extended header; a simple WebP gets one."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    at = webp.find(b"VP8X")
    if at > 0:
        return webp[: at + 12] + size + webp[at + 18 :]
    header = b"VP8X" + struct.pack("<II", 10, 0) + size
    return webp[:4] + struct.pack("<I", len(webp) + 10) + webp[8:12] + header + webp[12:]


def _webp_many_frames(count: int) -> bytes:
    parts = _split_webp(sound_images()["webp-animated"])
    frame = next(part for part in parts if part[0] == b"ANMF")
    return _join_webp([part for part in parts if part[0] != b"ANMF"] + [frame] * count)
