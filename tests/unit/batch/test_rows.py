from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from api_fakes import make_manifest
from maskserve.batch.rows import INSTANCES, PHOTOS, ListedPhoto, error_row, instance_rows, photo_row
from maskserve.core.errors import ImageMissingError
from maskserve.core.masks import MaskCrop
from maskserve.core.types import Instances

MANIFEST = make_manifest()


@st.composite
def found_instances(draw: st.DrawFn) -> Instances:
    """Any masks anywhere in a small photo, empty ones and none among them."""
    height, width = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    crops = []
    for _ in range(draw(st.integers(0, 4))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        h, w = draw(st.integers(0, height - top)), draw(st.integers(0, width - left))
        bits = draw(st.lists(st.booleans(), min_size=h * w, max_size=h * w))
        crops.append(MaskCrop(top, left, np.array(bits, np.bool_).reshape(h, w)))
    n = len(crops)
    boxes = np.array(
        [(c.left, c.top, c.left + c.pixels.shape[1], c.top + c.pixels.shape[0]) for c in crops],
        np.float32,
    ).reshape(n, 4)
    scores = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)), reverse=True)
    classes = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    return Instances(
        (height, width),
        MANIFEST.classes,
        boxes,
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        tuple(crops),
    )


@given(found_instances(), st.text(st.characters(codec="utf-8"), min_size=1))
def test_tables_keep_what_was_found(instances: Instances, name: str) -> None:
    photo = ListedPhoto(7, name, 3)
    row = photo_row(photo, b"abc", instances, manifest=MANIFEST)
    (of_photo,) = pa.Table.from_pylist([row], PHOTOS).to_pylist()
    of_instances = pa.Table.from_pylist(instance_rows(photo, instances), INSTANCES).to_pylist()
    union = np.zeros(instances.image_size, np.bool_)
    for i, (found, mask) in enumerate(zip(of_instances, instances.masks, strict=True)):
        size = [found["rle_height"], found["rle_width"]]
        decoded = coco_mask.decode({"size": size, "counts": found["rle_counts"].encode()})
        assert np.array_equal(decoded, mask)
        assert np.count_nonzero(decoded) == found["area_px"]
        box = [found[f"box_{side}"] for side in "xywh"]
        x0, y0, x1, y1 = instances.boxes_xyxy[i].tolist()
        assert box == [x0, y0, x1 - x0, y1 - y0]
        assert found["score"] == instances.scores[i]
        assert found["class"] == MANIFEST.classes[found["class_index"]]
        assert (found["photo_index"], found["photo"], found["instance"]) == (7, name, i)
        union |= decoded.astype(np.bool_)
    assert of_photo["masked_px"] == np.count_nonzero(union)
    assert of_photo["masked_px"] + of_photo["unmasked_px"] == union.size
    assert of_photo["instances"] == len(instances)
    assert dict(of_photo["masked_px_by_class"]).keys() == set(MANIFEST.classes)
    assert of_photo["error_code"] is None


def test_of_a_photo_that_cannot_be_used_only_the_error_is_known() -> None:
    photo = ListedPhoto(7, "a.jpg", 3)
    row = error_row(photo, None, ImageMissingError("It is gone."), manifest=MANIFEST)
    (found,) = pa.Table.from_pylist([row], PHOTOS).to_pylist()
    assert {name: value for name, value in found.items() if value is not None} == {
        "photo_index": 7,
        "photo": "a.jpg",
        "model": "balloon",
        "model_version": "1.0.0",
        "error_code": "image_missing",
        "error_message": "It is gone.",
    }


@pytest.mark.parametrize("address", ["caf\udce9.jpg", "café.jpg"])
def test_names_become_text(address: str) -> None:
    assert ListedPhoto(0, address, 0).name in ("caf\\udce9.jpg", "café.jpg")
