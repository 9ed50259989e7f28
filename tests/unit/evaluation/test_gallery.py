from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskserve.core import Instances
from maskserve.core.errors import ParameterError
from maskserve.core.predictor import Image
from maskserve.datasets import Dataset
from maskserve.evaluation import (
    annotated_instances,
    draw_gallery,
    draw_panel,
    write_gallery,
)
from maskserve.runtime.image_io import read_image

BALL = (20, 20, 80, 80)


def test_annotations_become_instances_of_full_score(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset([("ball", BALL), ("box", (90, 5, 110, 15))], crowds=[(0, 0, 9, 9)])
    instances = annotated_instances(dataset.samples[0], dataset.categories.names)
    assert instances.boxes_xyxy.tolist() == [[20, 20, 80, 80], [90, 5, 110, 15]]
    assert instances.scores.tolist() == [1, 1]
    assert instances.class_indices.tolist() == [0, 1]
    assert instances.areas_px.tolist() == [3600, 200]


@pytest.mark.parametrize(
    ("photos", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (9, 3, 2)]
)
def test_pairs_are_laid_out_in_rows(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    photos: int,
    rows: int,
    columns: int,
) -> None:
    dataset = make_dataset(*[[("ball", BALL)]] * photos)
    picture = draw_gallery(
        dataset, [make_instances()] * photos, min_score=0.5, limit=6, cell_size=(60, 90)
    )
    assert picture.shape == (rows * (60 + 24 + 6) + 6, columns * (2 * 90 + 6 + 6) + 6, 3)


def test_long_names_stay_over_their_own_photo(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)])
    sample = dataset.samples[0]
    path = sample.image_path.with_stem("0123456789abcdef" * 5)
    sample.image_path.rename(path)
    renamed = replace(dataset, samples=(replace(sample, image_path=path),))
    picture = draw_gallery(renamed, [make_instances()], min_score=0.5)
    gap = picture[6 : 6 + 24, 6 + 400 : 6 + 400 + 6]
    assert (gap == 255).all()
    assert (picture[6 : 6 + 24, 6 : 6 + 400] < 255).any()


def test_only_confident_predictions_are_drawn_beside_the_annotations(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", BALL)])
    found = make_instances(("ball", BALL, 0.6))
    left, top, width = 6, 6 + 24, 120

    def panels(min_score: float) -> tuple[np.ndarray, np.ndarray]:
        picture = draw_gallery(dataset, [found], min_score=min_score, cell_size=(100, width))
        rows = slice(top, top + 100)
        right = left + width + 6
        return picture[rows, left : left + width], picture[rows, right : right + width]

    plain = read_image(dataset.samples[0].image_path)
    annotated, shown = panels(0.5)
    assert not np.array_equal(annotated[50, 50], plain[50, 50])
    assert np.array_equal(annotated[50, 50], shown[50, 50])
    assert np.array_equal(panels(0.7)[1], plain)


@pytest.fixture
def grey() -> Image:
    return np.full((100, 120, 3), 128, dtype=np.uint8)


def test_a_panel_fits_into_its_cell(grey: Image, make_instances: Callable[..., Instances]) -> None:
    assert draw_panel(grey, make_instances(), cell_size=(50, 300)).shape == (50, 60, 3)
    assert draw_panel(grey, make_instances(), cell_size=(300, 240)).shape == (200, 240, 3)


def test_a_panel_of_a_window_shows_what_lies_in_it(
    grey: Image, make_instances: Callable[..., Instances]
) -> None:
    found = make_instances(("ball", BALL, 0.9), ("box", (100, 90, 110, 99), 0.8))
    panel = draw_panel(grey, found, cell_size=(200, 200), window=(0, 0, 50, 50), labels=False)
    assert panel.shape == (200, 200, 3)
    assert np.array_equal(panel[40, 40], grey[0, 0])  # at (10, 10) of the photo
    tint = panel[150, 150]
    assert not np.array_equal(tint, grey[0, 0])
    assert np.array_equal(tint, panel[180, 180])


def test_empty_data_set_gives_an_empty_page(make_dataset: Callable[..., Dataset]) -> None:
    assert draw_gallery(make_dataset(), [], min_score=0.5).size > 0


def test_gallery_is_written(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances], tmp_path: Path
) -> None:
    dataset = make_dataset([("ball", BALL)])
    write_gallery(tmp_path / "new" / "gallery.png", dataset, [make_instances()], min_score=0.5)
    expected = draw_gallery(dataset, [make_instances()], min_score=0.5)
    assert np.array_equal(read_image(tmp_path / "new" / "gallery.png"), expected)
    with pytest.raises(ParameterError, match=r"\.tiff"):
        write_gallery(tmp_path / "gallery.tiff", dataset, [make_instances()], min_score=0.5)
