"""The run-length encoding in which Label Studio keeps brush strokes.

A mask is an RGBA picture of the photo's size, row by row, and its alpha channel is the mask. The
picture is one stream of bits: 32 for the number of values, 5 for the bits of a value less one,
four times 4 for the bits of a length less one; then blocks, each with a bit that says whether
one value is repeated, two bits that choose one of the four kinds of length, the length less one,
and the value that is repeated, or so many values. This is the package ``rle-pack`` of
https://github.com/thi-ng/umbrella, which Label Studio uses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskserve.core.masks import Mask

__all__ = ["decode_brush", "encode_brush"]

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST_RUN = (1 << 16) // _CHANNELS
"""Pixels that one block can repeat."""
_OPAQUE = 128
"""From this alpha on a pixel belongs to the mask: the borders of strokes are drawn soft."""


def encode_brush(mask: Mask) -> list[int]:
    """Encode a mask, bool of shape (H, W), as bytes, 0..255.

    All four channels are 255 inside the mask and 0 outside, as Label Studio's own converter has
    it. Label Studio shows it in the colour of the label.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(starts, append=flat.size)
    values = np.where(flat[starts], 255, 0)

    pieces = -(-lengths // _LONGEST_RUN)  # blocks that each run needs
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    block = np.full(len(values), _LONGEST_RUN)
    block[last] = lengths - (pieces - 1) * _LONGEST_RUN
    repeats = block * _CHANNELS - 1

    kind = np.searchsorted(1 << _LENGTH_BITS, repeats, side="right")
    length_bits = _LENGTH_BITS[kind]
    codes = ((4 | kind) << length_bits | repeats) << _VALUE_BITS | values
    header = flat.size * _CHANNELS << 5 | _VALUE_BITS - 1
    for bits in _LENGTH_BITS.tolist():
        header = header << 4 | bits - 1
    stream = np.concatenate(
        (_to_bits(np.array([header]), np.array([53])), _to_bits(codes, 3 + length_bits + 8))
    )
    encoded: list[int] = np.packbits(stream).tolist()
    return encoded


def decode_brush(encoded: bytes, size: tuple[int, int]) -> Mask:
    """The mask, bool of shape ``size`` (height, width), that brush strokes cover.

    Raises:
        ValueError: The encoding is damaged, or that of a picture of another size.
    """
    height, width = size
    stream = _BitStream(encoded)
    count = stream.read(32)
    if count != height * width * _CHANNELS:
        raise ValueError(
            f"has {count} values, but a photo of {width}x{height} pixels has "
            f"{height * width * _CHANNELS}"
        )
    value_bits = stream.read(5) + 1
    if value_bits != _VALUE_BITS:
        raise ValueError(f"has values of {value_bits} bits, not of {_VALUE_BITS}")
    length_bits = [stream.read(4) + 1 for _ in range(4)]
    values = np.empty(count, dtype=np.uint8)
    done = 0
    while done < count:
        is_run = stream.read(1)
        length = stream.read(length_bits[stream.read(2)]) + 1
        if done + length > count:
            raise ValueError("goes on beyond its last pixel")
        values[done : done + length] = (
            stream.read(_VALUE_BITS) if is_run else stream.read_values(length)
        )
        done += length
    mask: Mask = values.reshape(height, width, _CHANNELS)[..., -1] >= _OPAQUE
    return mask


def _to_bits(
    numbers: npt.NDArray[np.int64], widths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """The bits of each number, highest first, one number after the other."""
    aligned = (numbers << (64 - widths)).astype(">i8")
    bits = np.unpackbits(aligned.view(np.uint8)).reshape(-1, 64)
    return bits[np.arange(64) < widths[:, None]]


class _BitStream:
    """Reads numbers from a stream of bits."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._bit = 0

    def read(self, width: int) -> int:
        """The next ``width`` bits, at most 32, as a number."""
        first, offset = divmod(self._bit, 8)
        self._advance(width)
        window = int.from_bytes(self._data[first : first + 5].ljust(5, b"\0"))
        return window >> (40 - offset - width) & ((1 << width) - 1)

    def read_values(self, count: int) -> npt.NDArray[np.uint8]:
        """The next ``count`` numbers of 8 bits."""
        first, offset = divmod(self._bit, 8)
        self._advance(count * 8)
        window = np.frombuffer(
            self._data[first : first + count + 1].ljust(count + 1, b"\0"), np.uint8
        )
        pairs = window[:-1].astype(np.uint16) << 8 | window[1:]
        return (pairs >> (8 - offset)).astype(np.uint8)

    def _advance(self, bits: int) -> None:
        self._bit += bits
        if self._bit > 8 * len(self._data):
            raise ValueError("ends too early")
