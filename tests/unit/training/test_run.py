"""What a run is made of, up to its first step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest

from maskserve.core.errors import DatasetError
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.training import TrainSettings, train
from maskserve.training.run import RunRecord, Validation

Start = Callable[[TrainSettings], RunRecord]


class _StartedError(Exception):
    """Training would begin now."""


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    folder = tmp_path / "toys"
    write_via_dataset(folder, train=2, val=1, size=(48, 64), instances_per_photo=1)
    return folder


@pytest.fixture
def start(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Prepare a run on ``toys``, and read what it says of itself."""

    def fit(*_: Any, **__: Any) -> None:
        raise _StartedError

    monkeypatch.setattr(lightning.Trainer, "fit", fit)

    def prepare(settings: TrainSettings) -> RunRecord:
        with pytest.raises(_StartedError):
            train(settings, data=toys, out=tmp_path / "run")
        return RunRecord.model_validate_json((tmp_path / "run" / "settings.json").read_text())

    return prepare


@pytest.mark.parametrize("val_split", [None, "val"])
def test_the_class_is_read_from_the_attribute_that_is_named(
    start: Start, toys: Path, val_split: str | None
) -> None:
    for path in toys.glob("*/via_region_data.json"):
        entries = json.loads(path.read_text())
        for entry in entries.values():
            for region in entry["regions"].values():
                region["region_attributes"] = {"colour": "red", "kind": "kite"}
        path.write_text(json.dumps(entries))
    settings = TrainSettings(init="none", val_split=val_split)
    with pytest.raises(DatasetError, match="several attributes"):
        start(settings)
    assert start(settings.model_copy(update={"class_attribute": "kind"})).classes == ("kite",)


@pytest.mark.parametrize("val_split", [None, "val"])
def test_the_format_that_is_named_is_read(start: Start, toys: Path, val_split: str | None) -> None:
    (toys / "annotations").mkdir()
    (toys / "annotations" / "instances_train.json").write_text("{}")
    settings = TrainSettings(init="none", val_split=val_split)
    with pytest.raises(DatasetError, match=r"instances_train\.json"):
        start(settings)
    assert start(settings.model_copy(update={"data_format": "via"})).classes == ("toys",)


def test_one_photo_is_told_in_the_singular(start: Start) -> None:
    record = start(TrainSettings(init="none"))
    assert record.data == "toys train (training part): 1 photo, 1 instance"
    validation = Validation(step=1, min_score=0.5, metrics={})
    assert record.manifest(validation).metrics == {"1 validation photo": {}}


def test_more_photos_are_told_in_the_plural(start: Start) -> None:
    record = start(TrainSettings(init="none", val_split="val"))
    assert record.data == "toys train: 2 photos, 2 instances"
