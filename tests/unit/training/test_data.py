from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskserve.core import Preprocess
from maskserve.datasets import Dataset, load_dataset
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.training import TrainSettings
from maskserve.training.config import AugmentSettings
from maskserve.training.data import StepSampler, TrainingExamples, ValidationExamples

SETTINGS = TrainSettings(
    preprocess=Preprocess(short_side_px=96, max_side_px=160), augment=AugmentSettings(crop_px=96)
)


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    write_via_dataset(tmp_path / "shapes")
    return load_dataset(tmp_path / "shapes", split="train")


def test_an_example_depends_on_its_number_alone(shapes: Dataset) -> None:
    examples = TrainingExamples(shapes, SETTINGS)
    in_order = [examples[number][0] for number in range(6)]
    assert torch.equal(TrainingExamples(shapes, SETTINGS)[4][0], in_order[4])
    assert not torch.equal(in_order[0], in_order[4])


def test_boxes_are_tight_around_masks(shapes: Dataset) -> None:
    seen = 0
    for number in range(8):
        image, target = TrainingExamples(shapes, SETTINGS)[number]
        assert image.shape == (3, 96, 96)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        for box, mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            x0, y0, x1, y1 = box
            assert int(mask[y0:y1, x0:x1].sum()) == int(mask.sum()) > 0
            assert mask[y0].any()
            assert mask[y1 - 1].any()
            assert mask[:, x0].any()
            assert mask[:, x1 - 1].any()
            seen += 1
        assert (target["labels"] == 1).all()
    assert seen > 8


def test_validation_sees_whole_photos_as_they_are_served(shapes: Dataset) -> None:
    image, target = ValidationExamples(shapes, SETTINGS.preprocess)[0]
    assert image.shape == (3, 128, 128)
    assert len(target["masks"]) == len(shapes.samples[0].annotations)


def test_epochs_continue_the_numbers() -> None:
    sampler = StepSampler(3)
    assert list(sampler) == [0, 1, 2]
    sampler.set_epoch(2)
    assert list(sampler) == [6, 7, 8]
