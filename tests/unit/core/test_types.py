from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from maskserve.core import Instances, MaskCrop
from maskserve.core.errors import MissingExtraError
from maskserve.core.masks import decode_rle
from maskserve.core.types import percent


def instances_of(
    *rectangles: tuple[int, int, int, int, int], size: tuple[int, int] = (4, 4)
) -> Instances:
    """Filled rectangles (class_index, left, top, right, bottom), best first."""
    n = len(rectangles)
    return Instances(
        size,
        ("balloon", "kite"),
        np.array([r[1:] for r in rectangles], np.float32).reshape(n, 4),
        np.linspace(0.9, 0.5, n).astype(np.float32),
        np.array([r[0] for r in rectangles], np.int64),
        tuple(MaskCrop(t, x, np.ones((b - t, r - x), np.bool_)) for _, x, t, r, b in rectangles),
    )


class TestCoverage:
    def test_overlaps_count_once_in_all_but_for_each_class_of_their_own(self) -> None:
        coverage = instances_of((0, 0, 0, 3, 2), (1, 1, 1, 4, 3)).coverage()
        assert coverage.masked_px == 10
        assert coverage.unmasked_px == 6
        assert coverage.total_px == 16
        assert coverage.masked_percent == 62.5
        assert coverage.unmasked_percent == 37.5
        assert coverage.per_class["balloon"].masked_px == 6
        assert coverage.per_class["kite"].masked_percent == 37.5

    def test_overlaps_within_a_class_count_once(self) -> None:
        coverage = instances_of((0, 0, 0, 2, 2), (0, 0, 0, 2, 2)).coverage()
        assert coverage.per_class["balloon"].masked_px == coverage.masked_px == 4

    def test_every_class_is_listed_where_nothing_was_found(self) -> None:
        coverage = Instances.empty((4, 4), ["balloon", "kite"]).coverage()
        assert coverage.masked_px == 0
        assert coverage.unmasked_percent == 100
        assert list(coverage.per_class) == ["balloon", "kite"]

    @given(
        st.lists(
            st.tuples(st.integers(0, 1), *[st.integers(0, 9)] * 4).map(
                lambda r: (r[0], min(r[1], r[3]), min(r[2], r[4]), max(r[1], r[3]), max(r[2], r[4]))
            ),
            max_size=5,
        )
    )
    def test_parts_add_up_and_equal_the_decoded_masks(
        self, rectangles: list[tuple[int, int, int, int, int]]
    ) -> None:
        instances = instances_of(*rectangles, size=(9, 9))
        coverage = instances.coverage()
        assert coverage.masked_px + coverage.unmasked_px == coverage.total_px == 81
        assert coverage.masked_percent + coverage.unmasked_percent == pytest.approx(100)
        decoded = np.zeros((9, 9), np.bool_)
        for rle in instances.rles():
            decoded |= decode_rle(rle)
        assert np.count_nonzero(decoded) == coverage.masked_px
        assert np.count_nonzero(instances.masks.any(axis=0)) == coverage.masked_px


class TestInstances:
    def test_masks_are_as_large_as_the_photo(self) -> None:
        instances = instances_of((0, 1, 1, 3, 3), size=(5, 7))
        assert instances.masks.shape == (1, 5, 7)
        np.testing.assert_array_equal(instances.areas_px, [4])

    def test_select_keeps_order_and_all_columns(self) -> None:
        instances = instances_of((0, 0, 0, 1, 1), (1, 1, 0, 2, 1), (0, 2, 0, 3, 1))
        selected = instances.select(np.array([True, False, True]))
        assert len(selected) == 2
        np.testing.assert_array_equal(selected.class_indices, [0, 0])
        np.testing.assert_array_equal(selected.scores, instances.scores[[0, 2]])
        assert [crop.left for crop in selected.crops] == [0, 2]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("boxes_xyxy", np.zeros((2, 4), np.float32)),
            ("scores", np.zeros(1, np.float64)),
            ("class_indices", np.zeros((1, 1), np.int64)),
        ],
    )
    def test_wrong_arrays_are_refused_by_name(self, field: str, value: object) -> None:
        arrays: dict[str, object] = {
            "boxes_xyxy": np.zeros((1, 4), np.float32),
            "scores": np.zeros(1, np.float32),
            "class_indices": np.zeros(1, np.int64),
            field: value,
        }
        crop = MaskCrop(0, 0, np.ones((1, 1), np.bool_))
        with pytest.raises(ValueError, match=f"^{field}: expected"):
            Instances((4, 4), ("balloon",), crops=(crop,), **arrays)  # type: ignore[arg-type]


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_percent_lies_between_0_and_100(part_px: int, total_px: int) -> None:
    assert 0 <= percent(min(part_px, total_px), total_px) <= 100


class TestCoco:
    def test_results_are_those_that_pycocotools_loads(self) -> None:
        found = instances_of((0, 0, 0, 3, 2), (1, 1, 1, 4, 3))
        coco = COCO()
        coco.dataset = {
            "images": [{"id": 7, "height": 4, "width": 4}],
            "annotations": [],
            "categories": [{"id": 3, "name": "kite"}, {"id": 9, "name": "balloon"}],
        }
        coco.createIndex()
        results = coco.loadRes(found.to_coco(7, category_ids=[9, 3]))
        first, second = results.loadAnns(results.getAnnIds(imgIds=[7]))
        assert (first["category_id"], second["category_id"]) == (9, 3)
        assert (first["bbox"], second["bbox"]) == ([0, 0, 3, 2], [1, 1, 3, 2])
        assert first["score"] == pytest.approx(0.9)
        assert np.array_equal(results.annToMask(second), found.masks[1])

    def test_categories_count_from_one(self) -> None:
        assert [r["category_id"] for r in instances_of((1, 0, 0, 1, 1)).to_coco(1)] == [2]

    def test_every_class_needs_a_category(self) -> None:
        with pytest.raises(ValueError, match="1 category_ids for 2 class_names"):
            instances_of().to_coco(1, category_ids=[5])


class TestSupervision:
    def test_detections(self) -> None:
        found = instances_of((0, 0, 0, 3, 2), (1, 1, 1, 4, 3))
        detections = found.to_supervision()
        assert len(detections) == 2
        assert np.array_equal(detections.xyxy, found.boxes_xyxy)
        assert np.array_equal(np.asarray(detections.mask), found.masks)
        assert np.array_equal(detections.data["class_name"], ["balloon", "kite"])

    def test_nothing_found(self) -> None:
        assert len(instances_of().to_supervision()) == 0

    def test_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "supervision", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'maskserve\[supervision\]'"):
            instances_of().to_supervision()
