from __future__ import annotations

from pathlib import Path

import pytest

from maskserve.core import Preprocess
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.models.mask_rcnn import LightDesign
from maskserve.training import TrainSettings, train
from maskserve.training.config import AugmentSettings

QUICK = TrainSettings(
    name="shapes",
    init="none",
    steps=2,
    validate_every=1,
    batch_size=1,
    workers=0,
    precision="f32",
    val_fraction=0.25,
    max_instances=5,
    design=LightDesign(
        channels=16,
        proposals=8,
        sampled_boxes=16,
        box_channels=8,
        box_features=16,
        mask_channels=(8,),
    ),
    preprocess=Preprocess(short_side_px=64, max_side_px=96),
    augment=AugmentSettings(crop_px=64),
)


@pytest.fixture(scope="session")
def quick() -> TrainSettings:
    """Two steps from random weights, on small photos, each followed by a validation."""
    return QUICK


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VIA data set of four photos."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_via_dataset(folder, train=4, val=1, size=(64, 96))
    return folder


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path) -> Path:
    """The folder of a run of ``quick``; to be read only."""
    run = tmp_path_factory.mktemp("runs") / "quick"
    train(QUICK, data=shapes_folder, out=run)
    return run
