from __future__ import annotations

import numpy as np
import pytest

from maskserve.core import Manifest, Provenance
from maskserve.runtime.engine import RawDetections
from maskserve.runtime.postprocess import to_instances


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="m",
        version="1",
        licence="Apache-2.0",
        created="2026-01-01",
        backbone="none",
        classes=("balloon",),
        category_ids=(1,),
        provenance=Provenance(data="", initial_weights=""),
        files={},
    )


def raw_of(*boxes: tuple[float, float, float, float]) -> RawDetections:
    n = len(boxes)
    return RawDetections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.5, n).astype(np.float32),
        np.zeros(n, np.int64),
        np.ones((n, 28, 28), np.float32),
    )


def test_boxes_and_masks_are_in_pixels_of_the_photo(manifest: Manifest) -> None:
    raw = raw_of((10, 20, 30, 40))
    instances = to_instances(raw, manifest, resized=(50, 100), image_size=(100, 400))
    np.testing.assert_array_equal(instances.boxes_xyxy, [[40, 40, 120, 80]])
    np.testing.assert_array_equal(instances.areas_px, [80 * 40])
    assert instances.image_size == (100, 400)
    assert instances.class_names == ("balloon",)


def test_boxes_are_clipped_and_those_without_area_dropped(manifest: Manifest) -> None:
    raw = raw_of((-10, -10, 5, 5), (60, 0, 70, 10), (8, 8, 8, 9))
    instances = to_instances(raw, manifest, resized=(50, 50), image_size=(50, 50))
    np.testing.assert_array_equal(instances.boxes_xyxy, [[0, 0, 5, 5]])
    np.testing.assert_array_equal(instances.scores, raw.scores[:1])


def test_nothing_found(manifest: Manifest) -> None:
    instances = to_instances(raw_of(), manifest, resized=(50, 50), image_size=(50, 50))
    assert len(instances) == 0
    assert instances.coverage().masked_px == 0


def test_the_manifests_mask_threshold_counts(manifest: Manifest) -> None:
    raw = raw_of((0, 0, 50, 50))
    raw.mask_grids[:] = 0.6
    strict = manifest.model_copy(
        update={"postprocess": manifest.postprocess.model_copy(update={"mask_threshold": 0.7})}
    )
    lenient_area, strict_area = (
        to_instances(raw, m, resized=(50, 50), image_size=(50, 50)).areas_px[0]
        for m in (manifest, strict)
    )
    assert lenient_area > 2000
    assert strict_area == 0
