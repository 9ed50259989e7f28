"""What a photo's file says about itself, read without decoding anything.

Only the structure is looked at, and only for so long: a file of a few megabytes can otherwise
keep a decoder busy for many minutes, or fill its memory with millions of empty parts, however
few pixels it has.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from maskserve.core.errors import ImageDecodeError, ImageTypeError

__all__ = ["SUPPORTED", "ImageHeader", "read_header"]

SUPPORTED = "JPEG, PNG and WebP are supported."

# Photos have up to about 10 scans and 100 segments; PNGs one chunk for each 8 KiB or so.
_MAX_SCANS = 200
_MAX_SEGMENTS = 2_000
_MAX_CHUNKS = 20_000

_RESAVE = "Open it in an image editor and save it again."

# Offset, bytes and name of what people send by mistake; only used to tell them what it is.
_OTHER_TYPES = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphe", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftyp", "a video"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG"),
)

# Markers of JPEG (ITU-T T.81, table B.1), the second byte after 0xff.
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_END, _SCAN = 0xD9, 0xDA
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Kind and size of a photo, as stored: not turned upright yet."""

    kind: Literal["JPEG", "PNG", "WebP"]
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader:
    """Tell kind and size of a photo by its first bytes, whatever the file is called.

    Args:
        data: Content of the file; what comes behind the photo does not matter.

    Raises:
        ImageTypeError: A file of another kind, which the message names.
        ImageDecodeError: Not an image, one that tells no size, or one with absurdly many parts.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return ImageHeader("JPEG", *_size_of(data, _read_jpeg))
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ImageHeader("PNG", *_size_of(data, _read_png))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ImageHeader("WebP", *_size_of(data, _read_webp))
    for offset, magic, name in _OTHER_TYPES:
        if data.startswith(magic, offset):
            raise ImageTypeError(f"This is {name}.", hint=SUPPORTED)
    what = "unknown data"
    if data[:64].isascii():
        start = data[:24].decode().encode("unicode_escape").decode()  # on one line
        what = f"it begins with the text “{start}”"
    raise ImageDecodeError(f"This is not an image: {what}.", hint=SUPPORTED)


def _size_of(data: bytes, read: Callable[[bytes], tuple[int, int] | None]) -> tuple[int, int]:
    try:
        size = read(data)
    except (IndexError, struct.error):
        size = None  # the file ends too early
    if size is None or 0 in size:
        raise ImageDecodeError(
            "The photo is damaged or incomplete: its header tells no size.",
            hint="Does it open in an image viewer? Copy or upload it again.",
        )
    return size


def _read_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height, from the first frame's header; then count what follows."""
    size = None
    scans = 0
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) and size:
            return size  # truncated, which the decoder says better
        if data[at] != 0xFF:
            return size
        marker = data[at + 1]
        if marker == _END:
            return size
        if marker == 0xFF:  # a byte that only fills
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in _SIZES and size is None:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == _SCAN:
            scans += 1
            if scans > _MAX_SCANS:
                raise ImageDecodeError(
                    f"The photo is a JPEG of more than {_MAX_SCANS} scans.", hint=_RESAVE
                )
            following = _AFTER_SCAN.search(data, at)
            if following is None:
                return size
            at = following.start()
    raise ImageDecodeError(
        f"The photo is a JPEG of more than {_MAX_SEGMENTS} segments.", hint=_RESAVE
    )


def _read_png(data: bytes) -> tuple[int, int] | None:
    """Width and height, which stand at a fixed place; then count the chunks."""
    if data[12:16] != b"IHDR":
        return None
    size = struct.unpack_from(">II", data, 16)
    at = 8
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return size[0], size[1]
        at += 12 + struct.unpack_from(">I", data, at)[0]
    raise ImageDecodeError(f"The photo is a PNG of more than {_MAX_CHUNKS} chunks.", hint=_RESAVE)


def _read_webp(data: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return low_width + (high_width << 16) + 1, low_height + (high_height << 16) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
