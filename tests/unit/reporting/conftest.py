"""A few photos of rectangles, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskserve.core import Categories, Instances
from maskserve.core.masks import MaskCrop
from maskserve.datasets import Annotation, Dataset, Sample
from maskserve.datasets.polygons import rectangle_polygon
from maskserve.evaluation import measure
from maskserve.reporting.evaluation import Findings, examine

SIZE = (100, 120)
BALL, BOX = (20, 20, 80, 80), (85, 5, 115, 45)

Box = tuple[int, int, int, int]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three photos: a ball and a box, a ball, nothing. The third has a name to be escaped."""
    samples = []
    photos: list[tuple[str, list[tuple[int, Box]]]] = [
        ("both.png", [(0, BALL), (1, BOX)]),
        ("ball.png", [(0, BALL)]),
        ("<b>none.png", []),
    ]
    for number, (name, boxes) in enumerate(photos, start=1):
        pixels = np.full((*SIZE, 3), 60 * number, dtype=np.uint8)
        PillowImage.fromarray(pixels).save(tmp_path / name)
        annotations = tuple(
            Annotation(index, (rectangle_polygon(x0, y0, x1 - x0, y1 - y0),))
            for index, (x0, y0, x1, y1) in boxes
        )
        samples.append(Sample(tmp_path / name, number, SIZE, annotations))
    return Dataset("toys val", Categories(("ball", "box"), (1, 2)), tuple(samples))


@pytest.fixture
def instances() -> Callable[..., Instances]:
    """Make what is found in a photo: class_index, rectangle and score of each, best first."""
    return _instances


def _instances(*found: tuple[int, Box, float]) -> Instances:
    return Instances(
        SIZE,
        ("ball", "box"),
        np.array([box for _, box, _ in found], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, _, score in found], dtype=np.float32),
        np.array([index for index, _, _ in found], dtype=np.int64),
        tuple(
            MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), dtype=np.bool_))
            for _, (x0, y0, x1, y1), _ in found
        ),
    )


@pytest.fixture
def make_findings(dataset: Dataset) -> Callable[..., Findings]:
    """What is to be said of predictions, which are by default not flawless."""
    flawed = (
        _instances((0, BALL, 0.9), (0, BALL, 0.8), (1, BOX, 0.4)),
        _instances((1, BALL, 0.95)),
        _instances((0, (5, 5, 30, 30), 0.7)),
    )

    def make(*predictions: Instances) -> Findings:
        return examine(dataset, measure(dataset, predictions or flawed), min_score=0.5)

    return make
