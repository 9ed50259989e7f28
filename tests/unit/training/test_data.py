from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskserve.core import Preprocess
from maskserve.core.errors import DatasetError
from maskserve.datasets import Dataset, load_dataset
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.runtime.image_io import write_image
from maskserve.training import TrainSettings
from maskserve.training.config import AugmentSettings, BackgroundSettings, ExtraSettings
from maskserve.training.data import (
    StepSampler,
    TrainingExamples,
    ValidationExamples,
    divide_backgrounds,
)

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


@pytest.mark.parametrize("examples", [TrainingExamples, ValidationExamples])
def test_photos_arrive_in_the_models_order_of_channels(shapes: Dataset, examples: Any) -> None:
    pixels = SETTINGS.preprocess.model_copy(
        update={"channel_order": "bgr", "mean": SETTINGS.preprocess.mean[::-1]}
    )
    bgr = SETTINGS.model_copy(update={"preprocess": pixels})
    rgb_first, bgr_first = (
        examples(shapes, settings if examples is TrainingExamples else settings.preprocess)[0][0]
        for settings in (SETTINGS, bgr)
    )
    assert torch.equal(bgr_first.flip(0), rgb_first)
    assert not torch.equal(bgr_first, rgb_first)


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


def _write_flat_photos(folder: Path, count: int) -> list[Path]:
    """Photos of one colour each, as no training photo is."""
    photos = [folder / f"empty_{number:02}.png" for number in range(count)]
    for number, photo in enumerate(photos):
        write_image(photo, np.full((120, 120, 3), 10 * number, dtype=np.uint8))
    return photos


def _is_flat(image: torch.Tensor) -> bool:
    return image.std(dim=(1, 2)).max().item() < 1e-3


def test_backgrounds_take_the_place_of_training_photos(shapes: Dataset, tmp_path: Path) -> None:
    photos = _write_flat_photos(tmp_path, 3)
    augment = AugmentSettings(crop_px=96, min_scale=1, max_scale=1, paste=0, colour=0)
    empty = 0
    for share in (0.0, 0.5, 1.0):
        backgrounds = BackgroundSettings(folder=str(tmp_path), share=share)
        chosen = SETTINGS.model_copy(update={"augment": augment, "backgrounds": backgrounds})
        examples = TrainingExamples(shapes, chosen, backgrounds=photos)
        flat = [_is_flat(examples[number][0]) for number in range(20)]
        empty_targets = [len(examples[number][1]["boxes"]) == 0 for number in range(20)]
        assert all(
            no_boxes for no_boxes, is_flat in zip(empty_targets, flat, strict=True) if is_flat
        )
        empty += sum(flat)
        assert sum(flat) == pytest.approx(20 * share, abs=20 * 0.25 * (share == 0.5))
    assert empty > 20


def test_instances_are_pasted_onto_backgrounds(shapes: Dataset, tmp_path: Path) -> None:
    photos = _write_flat_photos(tmp_path, 1)
    augment = AugmentSettings(crop_px=96, paste=1, colour=0)
    backgrounds = BackgroundSettings(folder=str(tmp_path), share=1)
    chosen = SETTINGS.model_copy(update={"augment": augment, "backgrounds": backgrounds})
    examples = TrainingExamples(shapes, chosen, backgrounds=photos)
    pasted = [len(examples[number][1]["boxes"]) for number in range(8)]
    assert sum(pasted) >= 4


def test_extra_photos_are_seen_too(shapes: Dataset, tmp_path: Path) -> None:
    write_via_dataset(tmp_path / "extra", seed=99)
    extra = load_dataset(tmp_path / "extra", split="train")
    chosen = SETTINGS.model_copy(
        update={"extra": ExtraSettings(folder=str(tmp_path / "extra"), share=1.0)}
    )
    seen = [TrainingExamples(shapes, chosen, extra=extra)[number][0] for number in range(4)]
    without = [TrainingExamples(shapes, SETTINGS)[number][0] for number in range(4)]
    assert not any(torch.equal(one, other) for one, other in zip(seen, without, strict=True))


def test_mosaics_have_the_size_of_other_examples(shapes: Dataset) -> None:
    augment = AugmentSettings(crop_px=96, mosaic=1)
    examples = TrainingExamples(shapes, SETTINGS.model_copy(update={"augment": augment}))
    instances = 0
    for number in range(6):
        image, target = examples[number]
        assert image.shape == (3, 96, 96)
        assert target["masks"].shape[1:] == (96, 96)
        instances += len(target["masks"])
    assert instances > 6 * 4


def test_backgrounds_are_divided_the_same_way_whatever_their_folder(tmp_path: Path) -> None:
    parts = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        _write_flat_photos(folder, 10)
        backgrounds = BackgroundSettings(folder=str(folder), val_fraction=0.2, test_fraction=0.3)
        divided = divide_backgrounds(backgrounds, seed=4)
        assert len(divided.train) == 5
        assert len(divided.val) == 2
        assert len(divided.test) == 3
        every = {*divided.train, *divided.val, *divided.test}
        assert every == set(folder.iterdir())
        parts.append([photo.name for photo in divided.test])
    assert parts[0] == parts[1]
    other = divide_backgrounds(backgrounds, seed=5)
    assert [photo.name for photo in other.test] != parts[0]


def test_too_few_backgrounds_are_refused(tmp_path: Path) -> None:
    _write_flat_photos(tmp_path, 2)
    backgrounds = BackgroundSettings(folder=str(tmp_path), val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(DatasetError, match="2 photos, and none is left for training"):
        divide_backgrounds(backgrounds, seed=0)
    with pytest.raises(DatasetError, match="nowhere"):
        divide_backgrounds(BackgroundSettings(folder=str(tmp_path / "nowhere")), seed=0)


def test_validation_sees_whole_photos_as_they_are_served(shapes: Dataset) -> None:
    image, target = ValidationExamples(shapes, SETTINGS.preprocess)[0]
    assert image.shape == (3, 128, 128)
    assert len(target["masks"]) == len(shapes.samples[0].annotations)


def test_epochs_continue_the_numbers() -> None:
    sampler = StepSampler(3)
    assert list(sampler) == [0, 1, 2]
    sampler.set_epoch(2)
    assert list(sampler) == [6, 7, 8]
