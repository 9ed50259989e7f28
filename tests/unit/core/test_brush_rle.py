"""Label Studio's brushes, against its own converter where that is installed."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskserve.core.brush_rle import decode_brush, encode_brush
from maskserve.core.masks import Mask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def disc(height: int, width: int) -> Mask:
    y, x = np.mgrid[0:height, 0:width]
    mask: Mask = (y - height / 2) ** 2 + (x - width / 2) ** 2 < min(height, width) ** 2 / 5
    return mask


DISC = bytes(encode_brush(disc(20, 30)))


def read_bits(encoded: list[int]) -> npt.NDArray[np.uint8]:
    """All values, read bit by bit as the format's own description has it."""
    bits = "".join(f"{byte:08b}" for byte in encoded)
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    count, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run = read(1)
        length = read(length_bits[read(2)]) + 1
        values += (
            [read(value_bits)] * length if is_run else [read(value_bits) for _ in range(length)]
        )
    assert len(bits) - place < 8, "there is more than padding"
    return np.array(values, dtype=np.uint8)


@given(MASKS)
def test_encoding_is_read_as_described(mask: Mask) -> None:
    rgba = read_bits(encode_brush(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(rgba, np.repeat(mask[..., None] * np.uint8(255), 4, axis=-1))


@given(MASKS)
def test_decoding_gives_the_mask_back(mask: Mask) -> None:
    assert np.array_equal(decode_brush(bytes(encode_brush(mask)), mask.shape), mask)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 63, 64, 65, 16384, 16385, 40000])
def test_runs_of_every_length(length: int) -> None:
    mask = np.zeros((1, length + 2), dtype=np.bool_)
    mask[0, 1:-1] = True
    assert np.array_equal(decode_brush(bytes(encode_brush(mask)), mask.shape), mask)


def test_strokes_with_soft_borders_and_literal_values() -> None:
    """As an editor writes them: values that differ are not repeated but listed."""
    alpha = [0, 0, 127, 128, 255, 200]
    values = [channel for a in alpha for channel in (10, 20, 30, a)]
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "0" + "10" + f"{len(values) - 1:08b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    encoded = int(bits, 2).to_bytes(len(bits) // 8)
    assert decode_brush(encoded, (2, 3)).tolist() == [[False, False, False], [True, True, True]]


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (DISC[:3], "ends too early"),
        (DISC[:-2], "ends too early"),
        (b"", "ends too early"),
        (bytes([0, 0, 0, 8]) + DISC[4:], "has 8 values, but a photo of 30x20"),
        (DISC[:4] + bytes([0]) + DISC[5:], "has values of 1 bits"),
        (DISC[:6] + b"\xff" * 99, "goes on beyond its last pixel"),
    ],
)
def test_damage_is_told(damaged: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        decode_brush(damaged, (20, 30))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_mask_or_an_error(data: bytes) -> None:
    with suppress(ValueError):
        assert decode_brush((480).to_bytes(4) + data, (10, 12)).shape == (10, 12)


@pytest.fixture(scope="module")
def their_brush() -> ModuleType:
    """The brush module of label-studio-sdk, without the rest, which pins other packages.

    It can be had with: pip install --no-deps label-studio-sdk
    """
    try:
        path = distribution("label-studio-sdk").locate_file("label_studio_sdk/converter/brush.py")
    except PackageNotFoundError:
        pytest.skip("label-studio-sdk is not installed, and its dependencies contradict ours")
    spec = importlib.util.spec_from_file_location("their_brush", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "mask", [disc(60, 90), disc(7, 5), ~disc(200, 300), np.zeros((9, 9), bool)]
)
def test_label_studios_converter_agrees_both_ways(their_brush: ModuleType, mask: Mask) -> None:
    decoded = their_brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(decoded[..., 3] == 255, mask)
    theirs = their_brush.mask2rle(mask * np.uint8(255))
    assert np.array_equal(decode_brush(bytes(theirs), mask.shape), mask)
