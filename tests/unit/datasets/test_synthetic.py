from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskserve.core.errors import OutputError
from maskserve.core.masks import decode_rle, polygons_to_rle
from maskserve.datasets import check_dataset, load_dataset
from maskserve.datasets.synthetic import (
    mask_outline,
    render_balloons,
    render_shapes,
    write_via_dataset,
)
from maskserve.runtime.image_io import read_image

Render = Callable[..., tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.bool_]]]]


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


@pytest.mark.parametrize("render", [render_shapes, render_balloons])
def test_same_seed_gives_the_same_picture(render: Render) -> None:
    image, masks = render(size=(90, 120), count=4, seed=3)
    again, masks_again = render(size=(90, 120), count=4, seed=3)
    other, _ = render(size=(90, 120), count=4, seed=4)
    assert np.array_equal(image, again)
    assert np.array_equal(masks, masks_again)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("render", [render_shapes, render_balloons])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_picture_has_the_instances_that_were_asked_for(render: Render, count: int) -> None:
    image, masks = render(size=(120, 160), count=count, seed=0)
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    assert len(masks) == count
    assert all(mask.shape == (120, 160) and mask.any() for mask in masks)
    if masks:
        assert np.sum(masks, axis=0).max() == 1  # no pixel is seen of two instances


def test_shapes_differ_from_the_ground_in_every_pixel() -> None:
    image, masks = render_shapes(size=(100, 100), count=4, seed=1)
    shapes = np.any(masks, axis=0)
    assert image[shapes].min() >= 120
    assert image[~shapes].max() < 60


@settings(deadline=None)
@given(st.integers(0, 200))
def test_shapes_do_not_touch(seed: int) -> None:
    _, masks = render_shapes(size=(64, 80), count=5, seed=seed)
    for i, mask in enumerate(masks):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= grown[:, :-1]
        grown[:, :-1] |= grown[:, 1:]
        assert not any((grown & other).any() for other in masks[i + 1 :])


def test_balloons_are_drawn_where_their_masks_are() -> None:
    with_one, (mask,) = render_balloons(size=(200, 260), count=1, seed=5)
    y, x = np.nonzero(mask)
    middle = with_one[int(y.mean()), int(x.mean())].astype(int)
    assert np.ptp(middle) > 60  # a saturated colour, unlike clouds
    assert 0.5 < np.ptp(x) / np.ptp(y) < 1


def test_balloons_are_small_and_large() -> None:
    _, masks = render_balloons(size=(240, 320), count=8, seed=0)
    areas = [int(mask.sum()) for mask in masks]
    assert max(areas) > 10 * min(areas)


@settings(deadline=None)
@given(st.integers(0, 300))
def test_outline_follows_its_mask(seed: int) -> None:
    _, masks = render_shapes(size=(64, 80), count=2, seed=seed)
    for mask in masks:
        drawn = decode_rle(polygons_to_rle([mask_outline(mask)], mask.shape))
        assert np.array_equal(drawn, mask)


@pytest.mark.parametrize("content", ["shapes", "balloons"])
def test_written_data_set_is_read_back(tmp_path: Path, content: str) -> None:
    root = tmp_path / "toys"
    write_via_dataset(
        root,
        content=content,  # type: ignore[arg-type]
        train=2,
        val=1,
        size=(96, 128),
        instances_per_photo=3,
        seed=7,
    )
    report = check_dataset(root)
    assert (report.errors, report.warnings) == ((), ())
    train, val = (load_dataset(root, split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (2, 1)
    assert train.categories.names == ("toys",)
    render = render_shapes if content == "shapes" else render_balloons
    for number, sample in enumerate((*train.samples, *val.samples)):
        image, masks = render(size=(96, 128), count=3, seed=7000 + number)
        assert np.array_equal(read_image(sample.image_path), image)
        assert len(sample.annotations) == len(masks)
        for annotation, mask in zip(sample.annotations, masks, strict=True):
            assert iou(annotation.mask(sample.image_size), mask) > 0.97


def test_folder_with_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("!")
    with pytest.raises(OutputError, match="is not empty"):
        write_via_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_via_dataset(tmp_path / "file" / "toys")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
