from __future__ import annotations

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from maskserve.core import Image
from maskserve.core.errors import (
    ImageDecodeError,
    ImageError,
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    OutputError,
    ParameterError,
)
from maskserve.runtime.image_io import (
    FILE_LIMITS,
    ImageLimits,
    decode_image,
    encode_image,
    encode_mask_png,
    media_type_of,
    read_image,
    write_image,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def photo() -> Image:
    """30 x 40 with a gradient, so that every row and column differs."""
    rows, columns = np.mgrid[0:30, 0:40].astype(np.uint8)
    return np.stack([rows * 8, columns * 6, rows + columns], axis=-1)


def save(picture: PillowImage.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size and never delivers."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(fields))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + fields + checksum


class TestDecoding:
    @pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp"])
    def test_supported_types_give_rgb(self, photo: Image, media_type: str) -> None:
        decoded = decode_image(encode_image(photo, media_type, quality=100))
        assert decoded.dtype == np.uint8
        assert decoded.shape == photo.shape
        assert np.abs(decoded.astype(int) - photo).mean() < 3

    def test_png_is_exact_and_writable(self, photo: Image) -> None:
        decoded = decode_image(encode_image(photo, "image/png"))
        np.testing.assert_array_equal(decoded, photo)
        assert decoded.flags.writeable

    def test_the_content_counts_and_not_the_files_name(self, photo: Image, tmp_path: Path) -> None:
        path = tmp_path / "photo.jpg"
        path.write_bytes(encode_image(photo, "image/png"))
        np.testing.assert_array_equal(read_image(path), photo)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_photos_are_turned_upright(self, photo: Image, orientation: int) -> None:
        as_stored = {
            1: photo,
            2: photo[:, ::-1],
            3: photo[::-1, ::-1],
            4: photo[::-1],
            5: photo.transpose(1, 0, 2),
            6: np.rot90(photo, 1),
            7: np.rot90(photo, 2).transpose(1, 0, 2),
            8: np.rot90(photo, -1),
        }[orientation]
        exif = PillowImage.Exif()
        exif[0x0112] = orientation
        data = save(PillowImage.fromarray(np.ascontiguousarray(as_stored)), "PNG", exif=exif)
        np.testing.assert_array_equal(decode_image(data), photo)

    @pytest.mark.parametrize("kind", ["JPEG", "WebP"])
    @pytest.mark.parametrize("orientation", [3, 6])
    def test_so_are_those_of_the_other_kinds(
        self, photo: Image, kind: str, orientation: int
    ) -> None:
        exif = PillowImage.Exif()
        exif[0x0112] = orientation
        as_stored = np.ascontiguousarray(np.rot90(photo, {3: 2, 6: 1}[orientation]))
        decoded = decode_image(save(PillowImage.fromarray(as_stored), kind, exif=exif, quality=100))
        assert decoded.shape == photo.shape
        assert np.abs(decoded.astype(int) - photo).mean() < 3

    @pytest.mark.parametrize("orientation", [0, 9])
    def test_an_orientation_that_means_nothing_is_taken_for_upright(
        self, photo: Image, orientation: int
    ) -> None:
        exif = PillowImage.Exif()
        exif[0x0112] = orientation
        data = save(PillowImage.fromarray(photo), "PNG", exif=exif)
        np.testing.assert_array_equal(decode_image(data), photo)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
    def test_a_photo_with_damaged_exif_is_still_a_photo(self, photo: Image) -> None:
        data = save(PillowImage.fromarray(photo), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05junk")
        assert decode_image(data).shape == photo.shape

    def test_transparency_shows_white(self) -> None:
        picture = PillowImage.new("RGBA", (2, 1), (*RED, 255))
        picture.putpixel((1, 0), (*BLUE, 0))
        decoded = decode_image(save(picture, "PNG"))
        np.testing.assert_array_equal(decoded, [[RED, WHITE]])

    def test_half_transparency_is_blended(self) -> None:
        decoded = decode_image(save(PillowImage.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG"))
        np.testing.assert_array_equal(decoded, [[[127] * 3]])

    def test_greyscale_with_alpha(self) -> None:
        decoded = decode_image(save(PillowImage.new("LA", (1, 1), (10, 0)), "PNG"))
        np.testing.assert_array_equal(decoded, [[WHITE]])

    def test_palettes_become_their_colours(self) -> None:
        picture = PillowImage.new("P", (2, 1))
        picture.putpalette([*GREEN, *BLUE])
        picture.putpixel((1, 0), 1)
        np.testing.assert_array_equal(decode_image(save(picture, "PNG")), [[GREEN, BLUE]])

    def test_a_transparent_palette_entry_shows_white(self) -> None:
        picture = PillowImage.new("P", (2, 1))
        picture.putpalette([*GREEN, *BLUE])
        picture.putpixel((1, 0), 1)
        decoded = decode_image(save(picture, "PNG", transparency=0))
        np.testing.assert_array_equal(decoded, [[WHITE, BLUE]])

    def test_greyscale_gets_three_equal_channels(self) -> None:
        decoded = decode_image(save(PillowImage.new("L", (1, 1), 77), "PNG"))
        np.testing.assert_array_equal(decoded, [[[77] * 3]])

    def test_black_and_white(self) -> None:
        decoded = decode_image(save(PillowImage.new("1", (1, 1), 1), "PNG"))
        np.testing.assert_array_equal(decoded, [[WHITE]])

    def test_16_bit_greyscale_is_scaled_and_not_clipped(self) -> None:
        pixels = np.array([[0, 0x1234, 0x8000, 0xFFFF]], np.uint16)
        decoded = decode_image(save(PillowImage.fromarray(pixels), "PNG"))
        np.testing.assert_array_equal(decoded[0, :, 0], [0, 0x12, 0x80, 0xFF])

    def test_16_bit_greyscale_with_a_transparent_value(self) -> None:
        stored = np.array([[1000, 30_000]], np.uint16)
        picture = PillowImage.fromarray(stored)
        data = save(picture, "PNG", transparency=1000)
        np.testing.assert_array_equal(decode_image(data), [[WHITE, [30_000 >> 8] * 3]])

    def test_16_bit_colour_keeps_the_upper_8(self) -> None:
        row = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0x00FF)
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(row)),
            (b"IEND", b""),
        ]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
            for kind, content in chunks
        )
        np.testing.assert_array_equal(decode_image(data), [[[0x12, 0x56, 0x9A], [255, 0, 0]]])

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
    def test_colour_profiles_change_nothing(self, photo: Image, kind: str) -> None:
        plain = save(PillowImage.fromarray(photo), kind)
        tagged = save(PillowImage.fromarray(photo), kind, icc_profile=b"not even a profile")
        assert len(tagged) > len(plain)
        np.testing.assert_array_equal(decode_image(tagged), decode_image(plain))

    def test_cmyk(self) -> None:
        data = save(PillowImage.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
        assert np.abs(decode_image(data)[4, 4].astype(int) - RED).max() < 5

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_of_an_animation_the_first_frame_counts(self, kind: str) -> None:
        frames = [PillowImage.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
        data = save(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(decode_image(data)[0, 0], RED)

    def test_from_many_threads(self, photo: Image) -> None:
        data = encode_image(photo, "image/png")
        with ThreadPoolExecutor(8) as pool:
            for decoded in pool.map(decode_image, [data] * 50):
                np.testing.assert_array_equal(decoded, photo)

    def test_pillows_global_limit_is_neither_used_nor_changed(
        self, photo: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 10)
        np.testing.assert_array_equal(decode_image(encode_image(photo, "image/png")), photo)
        assert PillowImage.MAX_IMAGE_PIXELS == 10


class TestRefusals:
    def test_no_bytes(self) -> None:
        with pytest.raises(ImageMissingError, match="0 bytes"):
            decode_image(b"")

    def test_a_text(self) -> None:
        with pytest.raises(ImageDecodeError, match="begins with the text “I am no photo”"):
            decode_image(b"I am no photo")

    def test_a_text_of_several_lines_is_quoted_on_one(self) -> None:
        with pytest.raises(ImageDecodeError) as caught:
            decode_image(b"<!DOCTYPE html>\r\n<html>\x1b[2J and so on")
        assert "the text “<!DOCTYPE html>\\r\\n<html>\\x1b”" in caught.value.message

    def test_unknown_bytes(self) -> None:
        with pytest.raises(ImageDecodeError, match="unknown data"):
            decode_image(bytes(range(255, 0, -1)))

    @pytest.mark.parametrize(
        ("data", "name"),
        [
            (save(PillowImage.new("RGB", (2, 2)), "GIF"), "a GIF"),
            (save(PillowImage.new("RGB", (2, 2)), "BMP"), "a BMP"),
            (save(PillowImage.new("RGB", (2, 2)), "TIFF"), "a TIFF"),
            (b"\0\0\0\x1cftypheic", "a HEIC"),
            (b"\0\0\0\x1cftypavif", "an AVIF"),
            (b"\0\0\0\x1cftypisom", "a video"),
            (b"%PDF-1.7", "a PDF"),
        ],
    )
    def test_other_types_are_named(self, data: bytes, name: str) -> None:
        with pytest.raises(ImageTypeError, match=f"This is {name}") as caught:
            decode_image(data)
        assert caught.value.hint == "JPEG, PNG and WebP are supported."

    def test_a_huge_header_is_refused_before_anything_is_decoded(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageTooLargeError, match="40000 x 40000 = 1,600,000,000 pixels"):
                decode_image(png_header(40_000, 40_000))

    def test_a_huge_webp_is_refused_too(self) -> None:
        small = encode_image(np.zeros((8, 8, 3), np.uint8), "image/webp")
        canvas = (16_384 - 1).to_bytes(3, "little")
        header = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + canvas + canvas
        data = b"WEBP" + header + small[12:]
        with pytest.raises(ImageTooLargeError):
            decode_image(b"RIFF" + len(data).to_bytes(4, "little") + data)

    def test_the_limit_on_pixels_itself_is_allowed(self, photo: Image) -> None:
        data = encode_image(photo, "image/png")
        assert decode_image(data, limits=ImageLimits(max_pixels=1200)).shape == photo.shape
        with pytest.raises(ImageTooLargeError):
            decode_image(data, limits=ImageLimits(max_pixels=1199))

    def test_the_limit_on_bytes_itself_is_allowed(self, photo: Image) -> None:
        data = encode_image(photo, "image/png")
        assert decode_image(data, limits=ImageLimits(max_bytes=len(data))).shape == photo.shape
        with pytest.raises(ImageTooLargeError, match="MiB"):
            decode_image(data, limits=ImageLimits(max_bytes=len(data) - 1))

    @pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/webp"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_a_truncated_photo(self, media_type: str, share: float) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        data = encode_image(noise, media_type)
        with pytest.raises(ImageDecodeError, match="damaged"):
            decode_image(data[: int(len(data) * share)])

    @pytest.mark.parametrize(
        ("media_type", "side"), [("image/jpeg", 65_500), ("image/webp", 16_383)]
    )
    def test_a_side_that_the_format_cannot_express_is_told(
        self, media_type: str, side: int
    ) -> None:
        line = np.zeros((1, side + 1, 3), np.uint8)
        assert decode_image(encode_image(line[:, :-1], media_type)).shape[1] == side
        with pytest.raises(ImageTooLargeError, match=f"has {side:,} at most"):
            encode_image(line, media_type)

    @given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", png_header(9, 9), b""]))
    def test_no_bytes_whatever_raise_anything_but_our_errors(
        self, data: bytes, start: bytes
    ) -> None:
        with pytest.raises(ImageError):
            decode_image(start + data)


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageMissingError, match=r"nowhere\.jpg cannot be read: No such file"):
            read_image(tmp_path / "nowhere.jpg")

    def test_a_folder_is_no_photo(self, tmp_path: Path) -> None:
        with pytest.raises(ImageMissingError, match=tmp_path.name):
            read_image(tmp_path)

    def test_what_is_wrong_with_the_content_names_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "text.jpg"
        path.write_text("hello")
        with pytest.raises(ImageDecodeError, match=r"text\.jpg: This is not an image"):
            read_image(path)

    def test_a_large_file_is_not_read_to_its_end(self, tmp_path: Path, photo: Image) -> None:
        path = tmp_path / "large.png"
        path.write_bytes(encode_image(photo, "image/png") + bytes(10_000))
        with pytest.raises(ImageTooLargeError, match=r"large\.png"):
            read_image(path, limits=ImageLimits(max_bytes=5000))

    def test_a_file_may_be_larger_than_what_strangers_send(
        self, tmp_path: Path, photo: Image
    ) -> None:
        path = tmp_path / "large.png"
        path.write_bytes(encode_image(photo, "image/png"))
        with path.open("r+b") as file:
            file.truncate(21 * 2**20)
        np.testing.assert_array_equal(read_image(path), photo)
        with pytest.raises(ImageTooLargeError, match=r"20\.0 MiB"):
            decode_image(path.read_bytes())

    def test_a_file_may_have_the_pixels_that_pillow_opens(self, tmp_path: Path) -> None:
        assert PillowImage.MAX_IMAGE_PIXELS is not None
        assert FILE_LIMITS.max_pixels == 2 * PillowImage.MAX_IMAGE_PIXELS
        path = tmp_path / "large.png"
        path.write_bytes(png_header(FILE_LIMITS.max_pixels, 1))
        with pytest.raises(ImageDecodeError, match="damaged"):  # but not too large
            read_image(path)
        path.write_bytes(png_header(FILE_LIMITS.max_pixels + 1, 1))
        with pytest.raises(ImageTooLargeError, match="at most 178,956,970"):
            read_image(path)

    def test_what_is_written_reads_back(self, tmp_path: Path, photo: Image) -> None:
        path = tmp_path / "new" / "photo.png"
        write_image(path, photo)
        np.testing.assert_array_equal(read_image(path), photo)
        assert [file.name for file in path.parent.iterdir()] == ["photo.png"]

    def test_a_folder_in_the_way_is_an_error_of_ours(self, tmp_path: Path, photo: Image) -> None:
        (tmp_path / "photo.png").mkdir()
        with pytest.raises(OutputError, match=r"photo\.png cannot be written"):
            write_image(tmp_path / "photo.png", photo)
        assert [file.name for file in tmp_path.iterdir()] == ["photo.png"]

    def test_an_unknown_suffix(self, tmp_path: Path, photo: Image) -> None:
        with pytest.raises(ParameterError, match=r"“\.bmp”"):
            write_image(tmp_path / "photo.bmp", photo)

    def test_suffixes_count_in_any_case(self) -> None:
        assert media_type_of(Path("PHOTO.JPEG")) == "image/jpeg"


def test_an_unknown_media_type(photo: Image) -> None:
    with pytest.raises(ParameterError, match="image/gif"):
        encode_image(photo, "image/gif")


def test_a_mask_becomes_one_channel_of_0_and_255() -> None:
    mask: npt.NDArray[np.bool_] = np.array([[True, False], [False, True]])
    picture = PillowImage.open(BytesIO(encode_mask_png(mask)))
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), mask * 255)
