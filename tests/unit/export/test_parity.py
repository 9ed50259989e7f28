"""The comparison before publishing must find each way in which an engine can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from maskserve.core import Image
from maskserve.core.errors import ParityError
from maskserve.export.parity import check_parity, probe_images
from maskserve.runtime.engine import RawDetections

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


class _Engine:
    """Finds two instances in everything but plain grey, altered as told."""

    def __init__(self, alter: Callable[[RawDetections], RawDetections] | None = None) -> None:
        self._alter = alter
        self.seen: list[Image] = []

    def infer(
        self,
        image: Image,
        *,
        min_score: float,  # noqa: ARG002
    ) -> RawDetections:
        self.seen.append(image)
        n = 0 if image.std() == 0 else 2
        raw = RawDetections(
            np.array([[1, 2, 30, 40], [20, 5, 50, 50]], np.float32)[:n],
            np.array([0.9, 0.6], np.float32)[:n],
            np.array([0, 1])[:n],
            np.full((n, 28, 28), 0.7, np.float32),
        )
        return self._alter(raw) if self._alter else raw


def _shift(raw: RawDetections) -> RawDetections:
    return replace(raw, boxes_xyxy=raw.boxes_xyxy + np.float32(2))


def _lower(raw: RawDetections) -> RawDetections:
    return replace(raw, scores=raw.scores - np.float32(0.02))


def _rename(raw: RawDetections) -> RawDetections:
    return replace(raw, class_indices=1 - raw.class_indices)


def _fade(raw: RawDetections) -> RawDetections:
    return replace(raw, mask_grids=raw.mask_grids * np.float32(0.9))


def _drop(raw: RawDetections) -> RawDetections:
    return RawDetections(
        raw.boxes_xyxy[:1], raw.scores[:1], raw.class_indices[:1], raw.mask_grids[:1]
    )


def _add(raw: RawDetections) -> RawDetections:
    if not len(raw.scores):
        return raw
    return RawDetections(
        np.concatenate([raw.boxes_xyxy, [[50, 50, 55, 55]]]).astype(np.float32),
        np.append(raw.scores, np.float32(0.5)),
        np.append(raw.class_indices, 0),
        np.concatenate([raw.mask_grids, np.zeros((1, 28, 28), np.float32)]),
    )


def test_equal_engines_pass_on_all_four_probes() -> None:
    candidate = _Engine()
    assert check_parity(_Engine(), candidate, [PHOTO]) == 6
    assert [image.shape for image in candidate.seen] == [
        (60, 80, 3),
        (60, 80, 3),
        (12, 160, 3),
        (60, 80, 3),
    ]
    assert (candidate.seen[0] == candidate.seen[3]).all()


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (_shift, "was not found"),
        (_lower, "score 0.9000 became 0.8800"),
        (_rename, "was not found"),
        (_fade, "a mask differs by 0.07"),
        (_drop, "score 0.600 was not found"),
        (_add, "an instance of score 0.500 was added"),
    ],
)
def test_drift_is_refused(alter: Callable[[RawDetections], RawDetections], told: str) -> None:
    with pytest.raises(ParityError, match=told):
        check_parity(_Engine(), _Engine(alter), [PHOTO])


def test_an_engine_that_remembers_the_last_photo_is_refused() -> None:
    class Remembering(_Engine):
        def infer(self, image: Image, *, min_score: float) -> RawDetections:
            raw = super().infer(image, min_score=min_score)
            return _shift(raw) if len(self.seen) == len(probe_images(PHOTO)) else raw

    with pytest.raises(ParityError, match="photo again"):
        check_parity(_Engine(), Remembering(), [PHOTO])


def test_an_instance_on_the_threshold_may_be_missing_on_one_side() -> None:
    assert check_parity(_Engine(), _Engine(_drop), [PHOTO], min_score=0.598) == 3


def test_something_found_on_the_empty_photo_is_refused() -> None:
    class Seeing(_Engine):
        def infer(self, image: Image, *, min_score: float) -> RawDetections:
            raw = super().infer(image, min_score=min_score)
            return super().infer(PHOTO, min_score=min_score) if image.std() == 0 else raw

    with pytest.raises(ParityError, match=r"empty photo: the best score 0\.0500 became 0\.9"):
        check_parity(_Engine(), Seeing(), [PHOTO])


def _crowd(raw: RawDetections, count: int) -> RawDetections:
    """Many copies of the first instance, side by side."""
    if not len(raw.scores):
        return raw
    shifts = np.arange(count, dtype=np.float32)[:, None] * 100
    return RawDetections(
        raw.boxes_xyxy[:1] + shifts,
        np.full(count, 0.9, np.float32),
        np.zeros(count, np.int64),
        np.repeat(raw.mask_grids[:1], count, axis=0),
    )


@pytest.mark.parametrize(
    ("count", "differing", "by_px", "passes"),
    [
        (40, 2, 5, True),
        (40, 3, 5, False),
        (19, 1, 5, False),
        # By a pixel they still overlap by 0.89: ties, of which there may be more.
        (40, 4, 1, True),
        (40, 5, 1, False),
        (9, 1, 1, False),
    ],
)
def test_among_many_instances_a_few_may_change_places(
    count: int, differing: int, by_px: int, passes: bool
) -> None:
    def swap(raw: RawDetections) -> RawDetections:
        crowd = _crowd(raw, count)
        boxes = crowd.boxes_xyxy.copy()
        boxes[:differing] += by_px
        return replace(crowd, boxes_xyxy=boxes)

    reference, candidate = _Engine(lambda raw: _crowd(raw, count)), _Engine(swap)
    if passes:
        assert check_parity(reference, candidate, [PHOTO]) == 3 * (count - differing)
    else:
        told = {5: r"score 0\.900 was not found", 1: r"became another one, of IoU 0\.89"}
        with pytest.raises(ParityError, match=told[by_px]):
            check_parity(reference, candidate, [PHOTO])


def test_a_box_that_overlaps_is_no_tie_if_its_score_or_class_differs() -> None:
    def swap(raw: RawDetections) -> RawDetections:
        crowd = _crowd(raw, 40)
        if not len(crowd.scores):
            return crowd
        boxes, classes = crowd.boxes_xyxy.copy(), crowd.class_indices.copy()
        scores = crowd.scores.copy()
        boxes[:3] += 1
        classes[:2] = 1
        scores[2] -= np.float32(0.1)
        return replace(crowd, boxes_xyxy=boxes, class_indices=classes, scores=scores)

    with pytest.raises(ParityError, match=r"score 0\.900 was not found"):
        check_parity(_Engine(lambda raw: _crowd(raw, 40)), _Engine(swap), [PHOTO])
