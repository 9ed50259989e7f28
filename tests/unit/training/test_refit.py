"""A refit learns from all photos, and is described by the run that it repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskserve.core.errors import SettingsError, TrainingError
from maskserve.training import TrainSettings, train
from maskserve.training.record import read_record, read_validation


@pytest.fixture(scope="module")
def refitted(
    tmp_path_factory: pytest.TempPathFactory, quick_run: Path, shapes_folder: Path
) -> Path:
    """A finished refit of ``quick_run``; to be read only."""
    out = tmp_path_factory.mktemp("runs") / "refit"
    train(TrainSettings(refit=str(quick_run), name="all"), data=shapes_folder, out=out)
    return out


def test_it_learns_from_all_photos_in_the_same_way(
    quick: TrainSettings, quick_run: Path, refitted: Path
) -> None:
    first, again = read_record(quick_run), read_record(refitted)
    assert len(first.train_photos) == 3
    assert set(again.train_photos) == {*first.train_photos, *first.val_photos}
    assert again.val_photos == first.val_photos
    changed = {"refit": str(quick_run), "name": "all"}
    assert again.settings == quick.model_copy(update=changed)
    weights = [(run / "weights.safetensors").read_bytes() for run in (quick_run, refitted)]
    assert weights[0] != weights[1]


def test_it_is_described_by_the_run_that_it_repeats(quick_run: Path, refitted: Path) -> None:
    first, again = read_validation(quick_run), read_validation(refitted)
    assert again.metrics == first.metrics
    assert (again.f1, again.coverage_error) == (first.f1, first.coverage_error)
    assert again.fold_mask_ap == (first.metrics["segm"]["AP"],)
    found = [json.loads((run / "predictions.json").read_text()) for run in (quick_run, refitted)]
    assert found[0] == found[1]
    assert list(read_record(refitted).manifest(again).metrics) == [
        "1 validation photo, before the refit"
    ]
    card = (refitted / "MODEL_CARD.md").read_text()
    assert "those of another model" in card
    assert str(quick_run.parent) not in card
    assert "another model, which was trained" in (refitted / "report.html").read_text()


def test_it_goes_on_after_an_interruption(
    quick_run: Path, refitted: Path, shapes_folder: Path
) -> None:
    settings = TrainSettings(refit=str(quick_run), name="all")
    before = read_validation(refitted).metrics
    assert train(settings, data=shapes_folder, out=refitted, resume=True).metrics == before


def test_other_settings_are_refused(quick_run: Path, shapes_folder: Path, tmp_path: Path) -> None:
    settings = TrainSettings(refit=str(quick_run), learning_rate=1e-5)
    with pytest.raises(SettingsError, match=r"learning_rate is not what .* was trained with"):
        train(settings, data=shapes_folder, out=tmp_path / "run")


def test_a_refit_of_a_refit_is_refused(refitted: Path, shapes_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to add"):
        train(TrainSettings(refit=str(refitted)), data=shapes_folder, out=tmp_path / "run")


def test_a_run_that_has_not_ended_is_refused(
    quick_run: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("settings.json", "validation.json"):
        (unfinished / name).write_bytes((quick_run / name).read_bytes())
    validation = json.loads((unfinished / "validation.json").read_text())
    (unfinished / "validation.json").write_text(json.dumps(validation | {"step": 1}))
    with pytest.raises(TrainingError, match="has not come to its end"):
        train(TrainSettings(refit=str(unfinished)), data=shapes_folder, out=tmp_path / "run")
