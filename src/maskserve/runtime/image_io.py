"""From the bytes of a photo to RGB pixels and back.

This is the only module that knows how Pillow fails. It changes none of Pillow's global
settings: limits are checked on the header before any pixel is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags
from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from maskserve.core.errors import (
    ImageDecodeError,
    ImageError,
    ImageMissingError,
    ImageTooLargeError,
    ParameterError,
)
from maskserve.core.masks import Mask
from maskserve.core.predictor import Image
from maskserve.runtime.files import write_file
from maskserve.runtime.image_header import SUPPORTED, ImageHeader, read_header

__all__ = [
    "DEFAULT_LIMITS",
    "FILE_LIMITS",
    "IMAGE_SUFFIXES",
    "ImageLimits",
    "check_image",
    "decode_image",
    "encode_image",
    "encode_mask_png",
    "media_type_of",
    "read_image",
    "write_image",
]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest photo that is decoded.

    Attributes:
        max_bytes: Of the file.
        max_pixels: Width times height, as the file's header gives them.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000


DEFAULT_LIMITS = ImageLimits()
"""For photos that strangers send."""

FILE_LIMITS = ImageLimits(max_bytes=2**30, max_pixels=178_956_970)
"""For files, which whoever runs this chose: they only keep the machine from swapping.

So many pixels are also the most that Pillow opens with its own settings, and so the most with
which :func:`maskserve.datasets.check_dataset` calls a photo sound.
"""

_MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
IMAGE_SUFFIXES = frozenset(_MEDIA_TYPES)
"""Suffixes, in lower case, of the files that :func:`read_image` and :func:`write_image` know."""

_MAX_SIDE_PX = {"image/jpeg": 65_500, "image/webp": 16_383}
"""That their libraries write; of a PNG, memory is the limit."""

_PLUGINS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}
"""The only readers of Pillow that are ever called."""

# What turns the stored photo upright, by EXIF orientation (CIPA DC-008, tag 0x0112).
_TO_UPRIGHT = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


def check_image(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> ImageHeader:
    """Refuse what is no photo, or too large a one, without decoding anything.

    A photo that passes may still turn out to be damaged.

    Args:
        data: Content of the file.
        limits: The largest photo that is decoded.

    Raises:
        ImageMissingError: There are no bytes at all.
        ImageTooLargeError: More bytes or more pixels than ``limits`` allow.
        ImageTypeError: A file of another kind, which the message names.
        ImageDecodeError: Not an image, or one whose header is damaged.
    """
    if not data:
        raise ImageMissingError("The photo is empty: it has 0 bytes.")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The photo has more than {limits.max_bytes / 2**20:.1f} MiB.",
            hint="Scale it down, or save it as JPEG.",
        )
    header = read_header(data)
    _check_pixels(header.width, header.height, limits=limits)
    return header


def decode_image(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Image:
    """Decode a JPEG, PNG or WebP as a person sees it.

    The photo is turned upright by its EXIF orientation, what is transparent shows white, of 16
    bits a channel the upper 8 are kept, and of an animation the first frame counts. Colour
    profiles (ICC) are ignored: every photo is taken for sRGB, as in training.

    Args:
        data: Content of the file.
        limits: The largest photo that is decoded.

    Raises:
        ImageMissingError: There are no bytes at all.
        ImageTooLargeError: More bytes or more pixels than ``limits`` allow.
        ImageTypeError: A file of another kind, which the message names.
        ImageDecodeError: Not an image, or a damaged one.
    """
    header = check_image(data, limits=limits)
    # On damaged files Pillow raises OSError, SyntaxError, ValueError, EOFError, struct.error …
    try:
        # The plugin itself and not Image.open, whose check of the size warns or raises by
        # a limit that is global.
        stored = _PLUGINS[header.kind](BytesIO(data))
    except PillowImage.DecompressionBombError as error:  # of its WebP reader nevertheless
        raise ImageTooLargeError(f"The photo is too large: {error}") from error
    except Exception as error:
        raise ImageDecodeError(f"The photo's header is damaged: {error}.") from error
    # Should Pillow find another size than the header tells.
    _check_pixels(*stored.size, limits=limits)
    try:
        stored.load()
        return np.array(_to_upright(_to_rgb(stored), _orientation(stored)))
    except Exception as error:
        raise ImageDecodeError(
            f"The photo is damaged or incomplete: {error}.",
            hint="Does it open in an image viewer? Copy or upload it again.",
        ) from error


def read_image(path: Path, *, limits: ImageLimits = FILE_LIMITS) -> Image:
    """Decode a file as :func:`decode_image` does, but also a very large one.

    Every message names the file.

    Raises:
        ImageMissingError: There is no such file, it is a folder, or it cannot be read.
        ImageError: As :func:`decode_image`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise ImageMissingError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return decode_image(data, limits=limits)
    except ImageError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def encode_image(image: Image, media_type: str, *, quality: int = 90) -> bytes:
    """Encode an image.

    Args:
        image: uint8, shape (H, W, 3), RGB.
        media_type: ``image/jpeg``, ``image/png`` or ``image/webp``.
        quality: 1..100, of JPEG and WebP; PNG is lossless.

    Raises:
        ParameterError: Another media type.
        ImageTooLargeError: A side is longer than the format can express.
    """
    picture = PillowImage.fromarray(image)
    if max(picture.size) > _MAX_SIDE_PX.get(media_type, max(picture.size)):
        raise ImageTooLargeError(
            f"The picture has {picture.width} x {picture.height} pixels; a side of an {media_type} "
            f"has {_MAX_SIDE_PX[media_type]:,} at most.",
            hint="Ask for image/png.",
        )
    buffer = BytesIO()
    if media_type == "image/jpeg":
        picture.save(buffer, "JPEG", quality=quality)
    elif media_type == "image/png":
        picture.save(buffer, "PNG", compress_level=3)  # half of the default's time, 5 % larger
    elif media_type == "image/webp":
        picture.save(buffer, "WEBP", quality=quality)
    else:
        raise ParameterError(f"“{media_type}” cannot be written.", hint=SUPPORTED)
    return buffer.getvalue()


def encode_mask_png(mask: Mask) -> bytes:
    """Encode a bool mask, shape (H, W), as a PNG with one 8-bit channel of 0 and 255."""
    buffer = BytesIO()
    PillowImage.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def media_type_of(path: Path) -> str:
    """The media type that a file's suffix stands for.

    Raises:
        ParameterError: It is none of :data:`IMAGE_SUFFIXES`.
    """
    try:
        return _MEDIA_TYPES[path.suffix.lower()]
    except KeyError:
        raise ParameterError(
            f"{path}: “{path.suffix}” is not a known type of image.", hint=SUPPORTED
        ) from None


def write_image(path: Path, image: Image) -> None:
    """Write an image in the format that the file's suffix names.

    Raises:
        ParameterError: The suffix is none of :data:`IMAGE_SUFFIXES`.
        OutputError: The file cannot be written.
    """
    write_file(path, encode_image(image, media_type_of(path)))


def _check_pixels(width: int, height: int, *, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"The photo has {width} x {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are accepted.",
            hint="Scale it down first.",
        )


def _to_rgb(stored: PillowImage.Image) -> PillowImage.Image:
    if stored.mode.startswith("I"):
        # 16-bit greyscale: Pillow's own conversion would clip at 255 instead of scaling.
        values = np.asarray(stored)
        grey = (values >> 8).astype(np.uint8)
        grey[values == stored.info.get("transparency", -1)] = 255
        return PillowImage.fromarray(grey).convert("RGB")
    if not stored.has_transparency_data:
        return stored if stored.mode == "RGB" else stored.convert("RGB")
    picture = stored.convert("RGBA")
    on_white = PillowImage.new("RGB", picture.size, "white")
    on_white.paste(picture, mask=picture.getchannel("A"))
    return on_white


def _orientation(stored: PillowImage.Image) -> int:
    """EXIF orientation; 1, which is upright, where there is none or the EXIF is damaged."""
    try:
        value = stored.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as in decode_image; a photo is worth showing without its EXIF
        return 1
    return value if isinstance(value, int) else 1


def _to_upright(picture: PillowImage.Image, orientation: int) -> PillowImage.Image:
    method = _TO_UPRIGHT.get(orientation)
    return picture if method is None else picture.transpose(method)
