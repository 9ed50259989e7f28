from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from maskserve.core.masks import (
    MaskCrop,
    crop_from_rle,
    crop_to_rle,
    decode_rle,
    encode_rle,
    paste_grid,
    polygons_to_rle,
    rle_area,
    rle_box_xyxy,
    union,
)

Mask = npt.NDArray[np.bool_]

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def mask_from(*rows: str) -> Mask:
    """Draw a mask: ``#`` is inside."""
    return np.array([[letter == "#" for letter in row] for row in rows])


RING = mask_from(
    ".##.",
    "#..#",
    "#..#",
    ".##.",
)


@st.composite
def crops_in_photos(draw: st.DrawFn) -> tuple[MaskCrop, tuple[int, int]]:
    """A crop that lies anywhere in a photo, its border included."""
    pixels = draw(masks)
    top, left, below, right = draw(st.tuples(*[st.integers(0, 6)] * 4))
    h, w = pixels.shape
    return MaskCrop(top, left, pixels), (top + h + below, left + w + right)


def paste(crop: MaskCrop, size: tuple[int, int]) -> Mask:
    photo = np.zeros(size, dtype=np.bool_)
    photo[crop.slices] = crop.pixels
    return photo


class TestRle:
    def test_counts_run_down_the_columns(self) -> None:
        # Columns of RING: .##. #..# #..# .##.
        uncompressed = {"size": [4, 4], "counts": [1, 2, 1, 1, 2, 2, 2, 1, 1, 2, 1]}
        expected = coco_mask.frPyObjects(uncompressed, 4, 4)
        assert encode_rle(RING) == {"size": [4, 4], "counts": expected["counts"].decode()}

    def test_area_and_box_of_a_drawn_mask(self) -> None:
        mask = mask_from(
            "....",
            ".##.",
            ".#..",
            "....",
        )
        assert rle_area(encode_rle(mask)) == 3
        np.testing.assert_array_equal(rle_box_xyxy(encode_rle(mask)), [1, 1, 3, 3])

    def test_an_empty_mask_has_no_area_and_a_box_of_zeros(self) -> None:
        rle = encode_rle(np.zeros((4, 4), np.bool_))
        assert rle_area(rle) == 0
        np.testing.assert_array_equal(rle_box_xyxy(rle), np.zeros(4))
        assert crop_from_rle(rle).pixels.shape == (0, 0)

    @given(masks)
    def test_decoding_gives_back_what_was_encoded(self, mask: Mask) -> None:
        np.testing.assert_array_equal(decode_rle(encode_rle(mask)), mask)

    @given(crops_in_photos())
    def test_crops_encode_as_pycocotools_encodes_the_whole_photo(
        self, crop_in_photo: tuple[MaskCrop, tuple[int, int]]
    ) -> None:
        crop, size = crop_in_photo
        assert crop_to_rle(crop, size) == encode_rle(paste(crop, size))

    @given(crops_in_photos())
    def test_a_crop_survives_the_way_through_an_rle(
        self, crop_in_photo: tuple[MaskCrop, tuple[int, int]]
    ) -> None:
        crop, size = crop_in_photo
        back = crop_from_rle(crop_to_rle(crop, size))
        np.testing.assert_array_equal(paste(back, size), paste(crop, size))
        assert back.area_px == crop.area_px

    def test_the_crop_from_an_rle_is_tight(self) -> None:
        crop = crop_from_rle(encode_rle(np.pad(RING, ((2, 1), (3, 5)))))
        assert (crop.top, crop.left) == (2, 3)
        np.testing.assert_array_equal(crop.pixels, RING)


class TestPolygons:
    def test_a_square_covers_the_pixels_between_its_corners(self) -> None:
        square = np.array([[1, 1], [3, 1], [3, 3], [1, 3]], np.float64)
        expected = mask_from(
            "....",
            ".##.",
            ".##.",
            "....",
        )
        np.testing.assert_array_equal(decode_rle(polygons_to_rle([square], (4, 4))), expected)

    def test_parts_are_united(self) -> None:
        square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.float64)
        assert rle_area(polygons_to_rle([square, square + 1], (4, 4))) == 7


class TestPasteGrid:
    def test_a_full_grid_fills_its_box(self) -> None:
        grid = np.ones((28, 28), np.float32)
        crop = paste_grid(grid, np.array([1, 1, 3, 3], np.float32), (4, 4))
        expected = mask_from(
            "....",
            ".##.",
            ".##.",
            "....",
        )
        np.testing.assert_array_equal(paste(crop, (4, 4)), expected)

    def test_a_grid_of_two_cells_splits_its_box(self) -> None:
        grid = np.array([[1, 0], [1, 0]], np.float32)
        crop = paste_grid(grid, np.array([0, 0, 4, 4], np.float32), (4, 4))
        expected = mask_from(
            "##..",
            "##..",
            "##..",
            "##..",
        )
        np.testing.assert_array_equal(paste(crop, (4, 4)), expected)

    @pytest.mark.parametrize(
        "box", [(2, 2, 2, 3), (3, 3, 1, 1), (-5, 0, -2, 4), (0, 9, 4, 12)], ids=str
    )
    def test_a_box_without_area_in_the_photo_gives_no_pixel(
        self, box: tuple[float, float, float, float]
    ) -> None:
        crop = paste_grid(np.ones((28, 28), np.float32), np.array(box, np.float32), (4, 4))
        assert crop.area_px == 0
        assert crop_to_rle(crop, (4, 4)) == encode_rle(np.zeros((4, 4), np.bool_))

    def test_a_box_beyond_the_photo_is_cut(self) -> None:
        crop = paste_grid(
            np.ones((28, 28), np.float32), np.array([-8, -8, 12, 12], np.float32), (4, 4)
        )
        assert paste(crop, (4, 4)).all()

    @pytest.mark.parametrize("seed", range(20))
    def test_it_agrees_with_grid_sample(self, seed: int) -> None:
        """Detectron2 and torchvision paste with ``grid_sample``; an independent implementation."""
        torch = pytest.importorskip("torch", reason="compares with torch's grid_sample")
        random = np.random.default_rng(seed)
        height, width = random.integers(5, 60, 2).tolist()
        grid = random.random((28, 28), dtype=np.float32)
        x0, y0 = random.uniform(-5, [width - 1, height - 1])
        box = np.array(
            [x0, y0, x0 + random.uniform(0.5, 40), y0 + random.uniform(0.5, 40)], np.float32
        )
        x = (torch.arange(width) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        y = (torch.arange(height) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].float()
        sampled = torch.nn.functional.grid_sample(
            torch.from_numpy(grid)[None, None], places, align_corners=False
        )[0, 0].numpy()
        crop = paste_grid(grid, box, (height, width))
        differs = paste(crop, (height, width)) != (sampled >= 0.5)
        # Rounding alone may turn a pixel over, and only right at the threshold.
        assert np.abs(sampled[differs] - 0.5).max(initial=0) < 1e-4


class TestUnion:
    def test_overlaps_count_once(self) -> None:
        crops = [
            MaskCrop(0, 0, np.ones((2, 3), np.bool_)),
            MaskCrop(1, 1, np.ones((2, 3), np.bool_)),
        ]
        expected = mask_from(
            "###.",
            "####",
            ".###",
            "....",
        )
        np.testing.assert_array_equal(union(crops, (4, 4)), expected)

    def test_nothing_covers_nothing(self) -> None:
        assert not union([], (4, 4)).any()
