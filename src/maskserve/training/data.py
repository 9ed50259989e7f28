"""Typed samples to torchvision's training input, the same for the same seed and step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError
from maskserve.core.manifest import Preprocess
from maskserve.datasets import Annotation, Dataset, Sample
from maskserve.datasets.photos import listed_photos
from maskserve.runtime.image_io import read_image
from maskserve.runtime.preprocess import resized_size
from maskserve.training.augment import (
    Scene,
    Window,
    augment_scene,
    draw_window,
    paste_instances,
    place_scene,
    tile_scenes,
    turn_hue,
)
from maskserve.training.config import BackgroundSettings, TrainSettings

__all__ = [
    "Backgrounds",
    "Example",
    "StepSampler",
    "Target",
    "TrainingExamples",
    "ValidationExamples",
    "collate",
    "divide_backgrounds",
]


class Target(TypedDict):
    """What torchvision's detection models learn from.

    example: its number, by which anchors and boxes are drawn; boxes: float32 (N, 4), xyxy in
    pixels; labels: int64 (N,), 1-based; masks: uint8 (N, H, W).
    """

    example: int
    boxes: Tensor
    labels: Tensor
    masks: Tensor


Example = tuple[Tensor, Target]
"""A photo, float32 (3, H, W) in 0..1, in the model's order of channels, and its target."""


class StepSampler(Sampler[int]):
    """Numbers the examples of a whole run: epoch 3 continues where epoch 2 ended.

    An example is drawn from its number alone, so a resumed run sees what the killed one would
    have seen. Of several processes each takes every so many-th, and all together see in a step
    what a single one would have seen. Lightning calls :meth:`set_epoch`.

    Args:
        examples_per_epoch: Of all processes.
        rank: The number of this process, from 0.
        processes: How many there are.
    """

    def __init__(self, examples_per_epoch: int, *, rank: int = 0, processes: int = 1) -> None:
        self._length = examples_per_epoch
        self._rank = rank
        self._processes = processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length // self._processes

    def __iter__(self) -> Iterator[int]:
        first = self._epoch * self._length
        return iter(range(first + self._rank, first + self._length, self._processes))


class TrainingExamples(TorchDataset[Example]):
    """Endless augmented examples; number ``n`` is always the same for the same seed.

    Args:
        dataset: The training photos. Every one is seen once a round, in a new order each round.
        settings: Augmentation, and how often the other two take a training photo's place.
        backgrounds: Photos without any instance; instances may be pasted onto them.
        extra: More annotated photos.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        *,
        backgrounds: Sequence[Path] = (),
        extra: Dataset | None = None,
    ) -> None:
        self._samples = dataset.samples
        self._settings = settings
        self._backgrounds = backgrounds
        self._extra = extra.samples if extra is not None else ()

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng((self._settings.seed, 1, number))
        augment = self._settings.augment
        if rng.random() < augment.mosaic:
            numbers = [number, *rng.integers(2**31, size=3).tolist()]
            scene = tile_scenes([self._scene(n, rng, zoom=0.5) for n in numbers])
        else:
            scene = self._scene(number, rng)
        scene = augment_scene(scene, augment, rng=rng)
        return _to_example(number, scene, self._settings.preprocess)

    def _scene(self, number: int, rng: np.random.Generator, *, zoom: float = 1.0) -> Scene:
        """A view of a photo, a background or an extra photo, perhaps with pasted instances."""
        settings = self._settings
        background_share = settings.backgrounds.share if settings.backgrounds else 0.0
        extra_share = settings.extra.share if settings.extra else 0.0
        kind = rng.random()
        if kind < background_share:
            photo = self._backgrounds[int(rng.integers(len(self._backgrounds)))]
            scene = self._view(photo, (), rng, zoom)
        elif kind < background_share + extra_share:
            scene = self._view_of(self._extra[rng.integers(len(self._extra))], rng, zoom)
        else:
            scene = self._view_of(self._in_turn(number), rng, zoom)
        if rng.random() < settings.augment.paste:
            other = self._view_of(self._samples[rng.integers(len(self._samples))], rng, zoom)
            other = turn_hue(other, settings.augment.paste_hue, rng=rng)
            scene = paste_instances(scene, other, rng=rng)
        return scene

    def _in_turn(self, number: int) -> Sample:
        round_number, position = divmod(number, len(self._samples))
        order = np.random.default_rng((self._settings.seed, 0, round_number)).permutation(
            len(self._samples)
        )
        return self._samples[int(order[position])]

    def _view_of(self, sample: Sample, rng: np.random.Generator, zoom: float) -> Scene:
        return self._view(sample.image_path, sample.annotations, rng, zoom)

    def _view(
        self,
        photo: Path,
        annotations: tuple[Annotation, ...],
        rng: np.random.Generator,
        zoom: float,
    ) -> Scene:
        preprocess = self._settings.preprocess
        image = read_image(photo)
        window = draw_window(
            image.shape[:2],
            annotations,
            self._settings.augment,
            preprocess,
            rng=rng,
            zoom=zoom,
        )
        return place_scene(image, annotations, window, fill=_fill(preprocess))


@dataclass(frozen=True, slots=True)
class Backgrounds:
    """Photos without any instance: to train with, to choose the threshold by, to test on."""

    train: tuple[Path, ...] = ()
    val: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()


def divide_backgrounds(settings: BackgroundSettings, *, seed: int) -> Backgrounds:
    """Divide a folder of photos without any instance.

    The division depends on the seed and on the photos' names alone.

    Raises:
        DatasetError: The folder is missing, or holds too few photos for the fractions.
    """
    folder = Path(settings.folder)
    photos = listed_photos(folder)
    photos.sort(key=lambda photo: sha256(f"{seed}/{photo.name}".encode()).hexdigest())
    tested = round(len(photos) * settings.test_fraction)
    chosen_by = round(len(photos) * settings.val_fraction)
    test, rest = photos[:tested], photos[tested:]
    val, train = rest[:chosen_by], rest[chosen_by:]
    if not train:
        raise DatasetError(
            f"{folder} holds {len(photos)} photos, and none is left for training when "
            f"{settings.val_fraction:.0%} and {settings.test_fraction:.0%} are held back."
        )
    return Backgrounds(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(test)))


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
        scene = place_scene(image, sample.annotations, window, fill=fill)
        return _to_example(index, scene, self._preprocess)


def _fill(preprocess: Preprocess) -> tuple[int, int, int]:
    """The mean as an RGB colour."""
    first, green, last = (round(value) for value in preprocess.mean)
    return (last, green, first) if preprocess.channel_order == "bgr" else (first, green, last)


def _to_example(number: int, scene: Scene, preprocess: Preprocess) -> Example:
    """From an RGB scene of numpy arrays to tensors; boxes are tight around the masks."""
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    if preprocess.channel_order == "bgr":
        image = image.flip(0)
    labels = [Categories.label_of(int(index)) for index in scene.class_indices]
    return image, {
        "example": number,
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
