from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskserve.core import Categories, Image, Instances, Manifest, Provenance
from maskserve.core.masks import EMPTY_CROP, MaskCrop
from maskserve.datasets import Annotation, Dataset, Sample
from maskserve.datasets.polygons import rectangle_polygon

SIZE = (100, 120)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom of a rectangle in whole pixels."""

MakeDataset = Callable[..., Dataset]
MakeInstances = Callable[..., Instances]


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Make a data set of photos in which rectangles are annotated."""

    def make(
        *photos: Sequence[tuple[str, Box]],
        classes: tuple[str, ...] = ("ball", "box"),
        crowds: Sequence[Box] = (),
    ) -> Dataset:
        samples = []
        for number, boxes in enumerate(photos, start=1):
            path = tmp_path / f"photo_{number}.png"
            height, width = SIZE
            # The red channel names the photo, so that a fake model can recognise it.
            pixels = np.full((height, width, 3), (number, 128, 128), dtype=np.uint8)
            PillowImage.fromarray(pixels).save(path)
            annotations = [
                Annotation(classes.index(name), (rectangle_polygon(x0, y0, x1 - x0, y1 - y0),))
                for name, (x0, y0, x1, y1) in boxes
            ]
            annotations += [
                Annotation(0, (rectangle_polygon(x0, y0, x1 - x0, y1 - y0),), is_crowd=True)
                for x0, y0, x1, y1 in crowds
            ]
            samples.append(Sample(path, 10 * number, SIZE, tuple(annotations)))
        # Ids with gaps, so that nobody can take them for indices.
        categories = Categories(classes, tuple(5 * i + 3 for i in range(len(classes))))
        return Dataset("toys val", categories, tuple(samples))

    return make


@pytest.fixture
def make_instances() -> MakeInstances:
    """Make the instances that a model finds: rectangles with a class and a score."""

    def make(
        *found: tuple[str, Box, float], classes: tuple[str, ...] = ("ball", "box")
    ) -> Instances:
        ordered = sorted(found, key=lambda instance: -instance[2])
        return Instances(
            SIZE,
            classes,
            np.array([box for _, box, _ in ordered], dtype=np.float32).reshape(-1, 4),
            np.array([score for _, _, score in ordered], dtype=np.float32),
            np.array([classes.index(name) for name, _, _ in ordered], dtype=np.int64),
            tuple(
                MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), dtype=np.bool_))
                if x1 > x0
                else EMPTY_CROP
                for _, (x0, y0, x1, y1), _ in ordered
            ),
        )

    return make


class FakePredictor:
    """Finds in the photo with the number n what stands in the n-th place."""

    def __init__(self, predictions: Sequence[Instances], classes: tuple[str, ...]) -> None:
        self._predictions = predictions
        self._classes = classes
        self.min_scores: list[float | None] = []

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            name="fake",
            version="1",
            licence="Apache-2.0",
            created="2026-01-01T00:00:00Z",
            backbone="none",
            classes=self._classes,
            category_ids=tuple(range(1, len(self._classes) + 1)),
            provenance=Provenance(data="none", initial_weights="none"),
            files={},
        )

    def predict(self, image: Image, *, min_score: float | None = None) -> Instances:
        self.min_scores.append(min_score)
        return self._predictions[int(image[0, 0, 0]) - 1]


@pytest.fixture
def fake_predictor() -> Callable[..., FakePredictor]:
    def make(*predictions: Instances, classes: tuple[str, ...] = ("ball", "box")) -> FakePredictor:
        return FakePredictor(predictions, classes)

    return make
