"""Sizes told by headers, and files that are made to keep decoders busy."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from maskserve.core.errors import ImageDecodeError, ImageError, ImageTypeError
from maskserve.runtime.image_header import ImageHeader, read_header

KINDS = ("JPEG", "PNG", "WebP")


def save(
    kind: str, *, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options: Any
) -> bytes:
    buffer = BytesIO()
    PillowImage.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"mode": "CMYK"}),
        ("JPEG", {"mode": "L"}),
        ("JPEG", {"exif": bytes(60_000)}),
        ("PNG", {}),
        ("PNG", {"mode": "I;16"}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("WebP", {"mode": "RGBA", "exif": b"Exif\0\0"}),
        ("WebP", {"save_all": True, "append_images": [PillowImage.new("RGB", (40, 30), "red")]}),
    ],
)
def test_headers_tell_kind_and_size(kind: str, options: dict[str, Any]) -> None:
    header = read_header(save(kind, **options) + b"and more behind it")
    assert (header.kind, header.width, header.height) == (kind, 40, 30)


@given(st.sampled_from(KINDS), st.integers(1, 300), st.integers(1, 300))
def test_pillow_tells_the_same(kind: str, width: int, height: int) -> None:
    assert read_header(save(kind, size=(width, height))) == ImageHeader(kind, width, height)  # type: ignore[arg-type]


@given(st.sampled_from(KINDS), st.data())
def test_no_damage_raises_anything_but_our_errors(kind: str, data: st.DataObject) -> None:
    photo = bytearray(save(kind))
    for _ in range(data.draw(st.integers(1, 8))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(photo[: data.draw(st.integers(0, len(photo)))]))
    except ImageError:
        return
    assert header.width > 0
    assert header.height > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 3, 12, 20])
def test_a_file_that_ends_in_its_header(kind: str, length: int) -> None:
    with pytest.raises(ImageError):
        read_header(save(kind)[:length])


@pytest.mark.parametrize("width", [0, 1])
def test_a_size_of_nothing(width: int) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, 1 - width)
    with pytest.raises(ImageDecodeError, match="tells no size"):
        read_header(header + bytes(20))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a" + bytes(20), "a GIF"),
        (b"II*\0" + bytes(20), "a TIFF"),
        (b"MM\0*" + bytes(20), "a TIFF"),
        (b"BM" + bytes(20), "a BMP"),
        (b"\0\0\0\x20ftypheic" + bytes(20), "a HEIC"),
        (b"\0\0\0\x20ftypavif" + bytes(20), "an AVIF"),
        (b"%PDF-1.7" + bytes(20), "a PDF"),
    ],
)
def test_other_types_are_named(data: bytes, name: str) -> None:
    with pytest.raises(ImageTypeError, match=name):
        read_header(data)


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan, which refines nothing, is there again and again."""
    photo = save("JPEG", size=(64, 64), progressive=True)
    last = photo.rindex(b"\xff\xda")
    return photo[:-2] + photo[last:-2] * scans + photo[-2:]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\xd8" + b"\xff\xe1\0\2" * 2_000_000 + save("JPEG")[2:], "2000 segments"),
        (b"\xff\xd8" + b"\xff" * 2_000_000 + save("JPEG")[2:], "2000 segments"),
        (jpeg_of_scans(300), "200 scans"),
        (save("PNG")[:33] + png_chunk(b"abCd") * 200_000 + save("PNG")[33:], "20000 chunks"),
    ],
    ids=["segments", "fill bytes", "scans", "chunks"],
)
def test_absurdly_many_parts_are_refused(data: bytes, what: str) -> None:
    with pytest.raises(ImageDecodeError, match=what):
        read_header(data)


def test_what_hides_behind_a_scan_is_counted_all_the_same() -> None:
    """An end marker within a segment, such as a comment, does not end the photo."""
    photo = jpeg_of_scans(300)
    comment = b"\xff\xfe\0\4\xff\xd9"
    second = photo.index(b"\xff\xda", photo.index(b"\xff\xda") + 1)
    with pytest.raises(ImageDecodeError, match="200 scans"):
        read_header(photo[:second] + comment + photo[second:])


def test_a_video_behind_a_photo_is_not_looked_at() -> None:
    """As phones append it to “motion photos”."""
    noise = np.random.default_rng(0).integers(0, 256, 10_000, np.uint8).tobytes()
    assert read_header(save("JPEG") + (noise + b"\xff\xda") * 500).width == 40
