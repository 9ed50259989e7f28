"""Typed samples to torchvision's training input, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from maskserve.core.categories import Categories
from maskserve.core.manifest import Preprocess
from maskserve.datasets import Dataset, Sample
from maskserve.runtime.image_io import read_image
from maskserve.runtime.preprocess import resized_size
from maskserve.training.augment import (
    Scene,
    Window,
    augment_scene,
    paste_instances,
    place_scene,
    random_window,
)
from maskserve.training.config import TrainSettings

__all__ = ["Example", "StepSampler", "Target", "TrainingExamples", "ValidationExamples", "collate"]


class Target(TypedDict):
    """What torchvision's detection models learn from.

    boxes: float32 (N, 4), xyxy in pixels; labels: int64 (N,), 1-based; masks: uint8 (N, H, W).
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor


Example = tuple[Tensor, Target]
"""A photo, float32 (3, H, W) in 0..1, and its target."""


class StepSampler(Sampler[int]):
    """Numbers the examples of a whole run: epoch 3 continues where epoch 2 ended.

    An example is drawn from its number alone, so a resumed run sees what the killed one would
    have seen. Lightning calls :meth:`set_epoch`.
    """

    def __init__(self, examples_per_epoch: int) -> None:
        self._length = examples_per_epoch
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        first = self._epoch * self._length
        return iter(range(first, first + self._length))


class TrainingExamples(TorchDataset[Example]):
    """Endless augmented examples; number ``n`` is always the same for the same seed."""

    def __init__(self, dataset: Dataset, settings: TrainSettings) -> None:
        self._samples = dataset.samples
        self._settings = settings

    def __getitem__(self, number: int) -> Example:
        # Every photo once a round, in a new order each round.
        round_number, position = divmod(number, len(self._samples))
        order = np.random.default_rng((self._settings.seed, 0, round_number)).permutation(
            len(self._samples)
        )
        rng = np.random.default_rng((self._settings.seed, 1, number))
        scene = self._view(self._samples[order[position]], rng)
        if rng.random() < self._settings.augment.paste:
            other = self._samples[rng.integers(len(self._samples))]
            scene = paste_instances(scene, self._view(other, rng), rng=rng)
        return _to_example(augment_scene(scene, self._settings.augment, rng=rng))

    def _view(self, sample: Sample, rng: np.random.Generator) -> Scene:
        preprocess = self._settings.preprocess
        window = random_window(sample.image_size, self._settings.augment, preprocess, rng=rng)
        image = read_image(sample.image_path)
        return place_scene(image, sample.annotations, window, fill=_fill(preprocess))


class ValidationExamples(TorchDataset[Example]):
    """Every photo once, at the size at which it would be served, for the validation loss."""

    def __init__(self, dataset: Dataset, preprocess: Preprocess) -> None:
        self._samples = dataset.samples
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Example:
        sample = self._samples[index]
        size = resized_size(sample.image_size, self._preprocess)
        window = Window(size, 0, 0, max(size), flipped=False)
        image = read_image(sample.image_path)
        fill = _fill(self._preprocess)
        return _to_example(place_scene(image, sample.annotations, window, fill=fill))


def _fill(preprocess: Preprocess) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in preprocess.mean)
    return red, green, blue


def _to_example(scene: Scene) -> Example:
    """From a scene of numpy arrays to tensors; boxes are tight around the masks."""
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    labels = [Categories.label_of(int(index)) for index in scene.class_indices]
    return image, {
        "boxes": torch.from_numpy(_tight_boxes(scene.masks)),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.from_numpy(scene.masks.astype(np.uint8)),
    }


def _tight_boxes(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def collate(examples: Sequence[Example]) -> tuple[list[Tensor], list[Target]]:
    """torchvision's detection models take lists."""
    return [image for image, _ in examples], [target for _, target in examples]
