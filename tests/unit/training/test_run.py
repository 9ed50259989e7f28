"""What a run is made of, and that it can be done again and gone on with."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from maskserve.core.errors import DatasetError, SettingsError, TrainingError
from maskserve.core.manifest import Postprocess, Preprocess
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.models import ResNetDesign, ResNetMaskRcnn, to_detectron2
from maskserve.models.checkpoint import write_weights
from maskserve.models.mask_rcnn import LightDesign
from maskserve.runtime.bundle import find_bundle, read_manifest
from maskserve.training import TrainSettings, Validation, run, train
from maskserve.training.config import ExtraSettings
from maskserve.training.record import RunRecord, read_record

GREY = (127.5, 127.5, 127.5)
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
    validation = Validation(
        step=1, seconds=1, min_score=0.5, f1=0, coverage_error=0, metrics={}, false_finds={}
    )
    assert record.manifest(validation).metrics == {"1 validation photo": {}}


def test_more_photos_are_told_in_the_plural(start: Start) -> None:
    record = start(TrainSettings(init="none", val_split="val"))
    assert record.data == "toys train: 2 photos, 2 instances"


def test_the_model_gives_as_many_instances_as_the_settings_say(start: Start) -> None:
    record = start(TrainSettings(init="none", max_instances=7))
    assert record.manifest().postprocess.max_instances == 7


def test_more_annotated_photos_are_told_of(start: Start, tmp_path: Path) -> None:
    write_via_dataset(tmp_path / "drawn", train=3, val=1, size=(48, 64), instances_per_photo=1)
    extra = ExtraSettings(folder=str(tmp_path / "drawn"), split="train")
    record = start(TrainSettings(init="none", val_split="val", extra=extra))
    assert record.data == "toys train: 2 photos, 2 instances; drawn train: 3 photos, 3 instances"


def _losses(folder: Path) -> list[dict[str, str]]:
    """All that was computed at each step, but for what the clock says."""
    with (folder / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    quick: TrainSettings, quick_run: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    train(quick, data=shapes_folder, out=tmp_path / "again")
    losses = _losses(quick_run)
    assert [row["step"] for row in losses] == ["1", "2"]
    assert _losses(tmp_path / "again") == losses
    train(quick.model_copy(update={"seed": 1}), data=shapes_folder, out=tmp_path / "other")
    assert _losses(tmp_path / "other")[0]["loss"] != losses[0]["loss"]


def test_a_run_that_failed_goes_on_as_if_nothing_had_happened(
    quick: TrainSettings,
    quick_run: Path,
    shapes_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[Path] = []

    def fail_the_second_time(path: Path, weights: Any) -> None:
        if written:
            raise OSError("The disk is full")
        written.append(path)
        write_weights(path, weights)

    with monkeypatch.context() as patched:
        patched.setattr("maskserve.training.validator.write_weights", fail_the_second_time)
        with pytest.raises(OSError, match="full"):
            train(quick, data=shapes_folder, out=tmp_path / "run")
    train(quick, data=shapes_folder, out=tmp_path / "run", resume=True)
    assert _losses(tmp_path / "run") == _losses(quick_run)
    assert len(list((tmp_path / "run" / "logs").iterdir())) == 2


def test_a_run_folder_holds_what_its_documentation_lists(quick_run: Path) -> None:
    documented = re.findall(r"^RUN/([\w.-]+)", run.__doc__ or "", flags=re.MULTILINE)
    assert sorted(path.name for path in quick_run.iterdir()) == sorted(documented)


def test_a_folder_with_a_run_is_left_alone(
    quick: TrainSettings, quick_run: Path, shapes_folder: Path
) -> None:
    with pytest.raises(TrainingError, match="already holds a run") as caught:
        train(quick, data=shapes_folder, out=quick_run)
    assert "--resume" in (caught.value.hint or "")
    other = quick.model_copy(update={"learning_rate": 1e-5})
    with pytest.raises(TrainingError, match="settings differ"):
        train(other, data=shapes_folder, out=quick_run, resume=True)


def test_a_run_resumes_without_its_initial_weights(
    start: Start, toys: Path, tmp_path: Path
) -> None:
    pixels = Preprocess(channel_order="bgr", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    design = ResNetDesign(stem_channels=8, first_channels=16, group_width=4, fpn_channels=8)
    donor = ResNetMaskRcnn(design, 2, pixels)
    state, config = to_detectron2(donor, preprocess=pixels, postprocess=Postprocess())
    weights = tmp_path / "model_final.pth"
    torch.save({"model": state}, weights)
    (tmp_path / "config.yaml").write_text(config)
    settings = TrainSettings(init=str(weights))
    assert start(settings).settings.preprocess.channel_order == "bgr"
    weights.unlink()
    (tmp_path / "run" / "last.ckpt").touch()
    with pytest.raises(_StartedError):
        train(settings, data=toys, out=tmp_path / "run", resume=True)


def test_a_run_resumes_with_the_network_that_it_has(
    quick: TrainSettings, quick_run: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(quick_run, tmp_path / "run")
    unset = TrainSettings.model_validate(quick.model_dump(exclude={"design", "preprocess"}))
    train(unset, data=shapes_folder, out=tmp_path / "run", resume=True)
    assert _losses(tmp_path / "run") == _losses(quick_run)


def test_a_run_that_starts_from_another_takes_over_what_is_not_set(
    quick: TrainSettings, quick_run: Path, start: Start, toys: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "earlier" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes((quick_run / weights.name).read_bytes())
    earlier = json.loads((quick_run / "settings.json").read_text())
    earlier["settings"]["preprocess"]["mean"] = [1.0, 2.0, 3.0]
    weights.with_name("settings.json").write_text(json.dumps(earlier))
    settings = TrainSettings(init=str(weights))

    record = start(settings)

    assert record.settings.design == quick.design
    assert record.settings.preprocess == quick.preprocess.model_copy(
        update={"mean": (1.0, 2.0, 3.0)}
    )
    first = read_record(quick_run)
    assert record.initial_weights == (
        f"model from weights.safetensors, trained {first.started[:10]} on {first.data} "
        f"({first.initial_weights})"
    )
    (tmp_path / "run" / "last.ckpt").touch()
    with pytest.raises(_StartedError):
        train(settings, data=toys, out=tmp_path / "run", resume=True)


def test_a_run_that_starts_from_another_needs_its_pixels(quick_run: Path, start: Start) -> None:
    other = Preprocess(mean=(1.0, 2.0, 3.0))
    with pytest.raises(SettingsError, match=r"preprocess.mean is set to \(1.0, .*settings.json"):
        start(TrainSettings(init=str(quick_run / "weights.safetensors"), preprocess=other))


def test_a_run_starts_from_a_bundle(start: Start) -> None:
    design = LightDesign(**_design_of("balloon-fast") | {"proposals": 20})
    settings = TrainSettings(
        init="balloon-fast",
        initial_share=0.5,
        design=design,
        class_name="balloon",
        preprocess=Preprocess(short_side_px=64, max_side_px=96, mean=GREY, std=GREY),
    )
    record = start(settings)
    assert record.settings.design == design
    assert record.initial_weights.startswith("model from bundle balloon-fast, trained on balloon")


def _design_of(bundle: str) -> dict[str, Any]:
    settings = read_manifest(find_bundle(bundle)).provenance.settings
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings["design"].items()}
