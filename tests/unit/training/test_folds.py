"""A cross-validation measures every photo by a model that has not seen it, and keeps another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskserve.core.errors import SettingsError, TrainingError
from maskserve.models.checkpoint import read_weights
from maskserve.models.start import Start, read_start
from maskserve.training import TrainSettings, initial_weights, run, train
from maskserve.training.config import read_settings
from maskserve.training.record import read_record, read_validation


@pytest.fixture(scope="module")
def settings(quick: TrainSettings) -> TrainSettings:
    return quick.model_copy(update={"folds": 2})


@pytest.fixture(scope="module")
def folded(
    tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path, settings: TrainSettings
) -> Path:
    """A finished cross-validation of four photos; to be read only."""
    out = tmp_path_factory.mktemp("runs") / "folded"
    train(settings, data=shapes_folder, out=out)
    return out


def _found(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "predictions.json").read_text())
    return sorted(found, key=lambda result: (result["image_id"], result["score"], result["bbox"]))


def test_every_photo_is_measured_by_a_model_that_has_not_seen_it(folded: Path) -> None:
    records = [read_record(folded / "folds" / fold) for fold in ("1", "2")]
    whole = read_record(folded)
    assert len(whole.train_photos) == 4
    for record in records:
        assert len(record.val_photos) == 2
        assert not set(record.train_photos) & set(record.val_photos)
        assert {*record.train_photos, *record.val_photos} == set(whole.train_photos)
    assert not set(records[0].val_photos) & set(records[1].val_photos)


def test_the_model_learns_from_all_and_is_described_by_the_folds(folded: Path) -> None:
    parts = [result for fold in ("1", "2") for result in _found(folded / "folds" / fold)]
    assert parts
    assert len(_found(folded)) == len(parts)
    assert [r["score"] for r in _found(folded)] == [
        r["score"] for r in sorted(parts, key=lambda r: (r["image_id"], r["score"], r["bbox"]))
    ]
    validation = read_validation(folded)
    assert validation.step == 2
    assert len(validation.fold_mask_ap) == 2
    manifest = read_record(folded).manifest(validation)
    assert list(manifest.metrics) == ["4 photos, cross-validated in 2 folds"]
    assert "2 models, each on the photos" in (folded / "MODEL_CARD.md").read_text()
    assert "by cross-validation" in (folded / "report.html").read_text()


def test_weights_are_the_averaged_ones(folded: Path) -> None:
    kept = read_weights(folded / "weights.safetensors")
    checkpoint = read_weights(folded / "last.ckpt")
    name = "roi_heads.box_predictor.cls_score.weight"
    averaged = next(value for key, value in checkpoint.items() if key.endswith(name))
    assert averaged.equal(kept[name])


class _KilledError(Exception):
    """The second fold never begins."""


def test_an_interrupted_one_goes_on_where_it_was(
    folded: Path,
    tmp_path: Path,
    shapes_folder: Path,
    settings: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    real = run._train

    def kill(of_fold: TrainSettings, *args: Any, **options: Any) -> Any:
        if of_fold.fold == 2:
            raise _KilledError
        return real(of_fold, *args, **options)

    monkeypatch.setattr(run, "_train", kill)
    with pytest.raises(_KilledError):
        train(settings, data=shapes_folder, out=out)
    monkeypatch.setattr(run, "_train", real)
    first = (out / "folds" / "1" / "last.ckpt").stat().st_mtime_ns

    with pytest.raises(TrainingError, match="already holds a run"):
        train(settings, data=shapes_folder, out=out)
    train(settings, data=shapes_folder, out=out, resume=True)

    assert (out / "folds" / "1" / "last.ckpt").stat().st_mtime_ns == first
    weights, undisturbed = (read_weights(f / "weights.safetensors") for f in (out, folded))
    assert all(weights[key].equal(undisturbed[key]) for key in undisturbed)
    assert read_validation(out).metrics == read_validation(folded).metrics


def test_an_ended_one_can_be_asked_to_go_on(
    tmp_path: Path, shapes_folder: Path, settings: TrainSettings
) -> None:
    out = tmp_path / "run"
    first = train(settings, data=shapes_folder, out=out)
    again = train(settings, data=shapes_folder, out=out, resume=True)
    assert again.metrics == first.metrics


@pytest.mark.parametrize("seeds", [{}, {"seed": 5, "split_seed": 0}])
def test_folds_of_a_further_training_start_from_the_folds_of_the_first(
    seeds: dict[str, int],
    folded: Path,
    tmp_path: Path,
    shapes_folder: Path,
    settings: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read = []

    def remember(source: str, **options: Any) -> Start:
        read.append(source)
        return read_start(source, **options)

    monkeypatch.setattr(initial_weights, "read_start", remember)
    weights = "weights.safetensors"
    further = settings.model_copy(update={"init": str(folded / weights), **seeds})
    train(further, data=shapes_folder, out=tmp_path / "run")
    folds = [folded / "folds" / fold / weights for fold in ("1", "2")]
    assert read == [str(path) for path in (*folds, folded / weights)]
    assert "Warning" not in capsys.readouterr().err
    for fold in ("1", "2"):
        first, again = (read_record(f / "folds" / fold) for f in (folded, tmp_path / "run"))
        assert again.val_photos == first.val_photos

    alone = further.model_copy(update={"fold": 2})
    train(alone, data=shapes_folder, out=tmp_path / "alone")
    assert read[-1] == str(folds[1])


def test_photos_that_the_earlier_run_has_learned_from_are_told(
    folded: Path,
    tmp_path: Path,
    shapes_folder: Path,
    settings: TrainSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = settings.model_copy(
        update={"init": str(folded / "weights.safetensors"), "folds": 4, "fold": 1}
    )
    train(other, data=shapes_folder, out=tmp_path / "run")
    told = capsys.readouterr().err
    (photo,) = read_record(tmp_path / "run").val_photos
    assert f"Warning: {folded} has learned from photos of the same names as 1 of the 1" in told
    assert f"validation photos ({photo})" in told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 3, "val_split": "val"}, "folds divide the training photos"),
        ({"fold": 1}, "there is no fold 1; folds is None"),
        ({"folds": 3, "fold": 4}, "there is no fold 4; folds is 3"),
        ({"folds": 1}, "folds: Input should be greater than or equal to 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(None, values)
