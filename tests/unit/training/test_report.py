"""What people read of a run: its report and its model card."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from maskserve.core.errors import DatasetError, TrainingError
from maskserve.training import load_run, report_run, write_card


@pytest.fixture
def run(quick_run: Path, tmp_path: Path) -> Path:
    """A copy of the quick run that may be changed."""
    return shutil.copytree(quick_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt"))


def test_the_report_stands_alone_and_names_no_folder_of_the_computer(
    quick_run: Path, shapes_folder: Path
) -> None:
    html = (quick_run / "report.html").read_text(encoding="utf-8")
    assert "Training of shapes" in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)
    assert str(shapes_folder) not in html
    assert "has not come to its end" not in html


def test_the_card_has_the_numbers_of_the_validation(quick_run: Path) -> None:
    card = (quick_run / "MODEL_CARD.md").read_text(encoding="utf-8")
    validation = json.loads((quick_run / "validation.json").read_text())
    assert card.startswith("# shapes ")
    assert "| 1 validation photo | masks |" in card
    assert f"off by {validation['coverage_error']:.2f} percentage points" in card
    assert "2 steps in" in card
    assert "preprocess.short_side_px = 64" in card
    assert "design.mask_channels = [8]" in card


def test_the_report_is_written_again_without_the_network(run: Path) -> None:
    for name in ("report.html", "MODEL_CARD.md", "results.csv", "curves.png"):
        (run / name).unlink()
    (run / "weights.safetensors").unlink()
    report = report_run(run)
    assert report == run / "report.html"
    for name in ("report.html", "MODEL_CARD.md", "results.csv", "curves.png"):
        assert (run / name).stat().st_size > 0


def test_an_interrupted_run_says_so(run: Path) -> None:
    validation = json.loads((run / "validation.json").read_text())
    (run / "validation.json").write_text(json.dumps(validation | {"step": 1}))
    report_run(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "has not come to its end" in html
    assert "step 1 of 2" in html


def test_data_that_was_moved_must_be_named(run: Path, shapes_folder: Path, tmp_path: Path) -> None:
    record = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(record | {"data_folder": "/nowhere/shapes"}))
    with pytest.raises(TrainingError, match="not in /nowhere/shapes") as caught:
        report_run(run)
    assert "--data DIR" in (caught.value.hint or "")
    moved = shutil.copytree(shapes_folder, tmp_path / "shapes")
    assert report_run(run, data=moved).exists()


def test_other_photos_are_refused(run: Path) -> None:
    record = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(record | {"val_photos": ["other.png"]}))
    with pytest.raises(TrainingError, match="other validation photos"):
        report_run(run)


def test_a_run_without_predictions_is_refused(run: Path) -> None:
    (run / "predictions.json").unlink()
    with pytest.raises(DatasetError, match=r"predictions\.json"):
        report_run(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"settings\.json"):
        report_run(tmp_path)


def test_settings_of_another_version_are_refused(run: Path) -> None:
    record = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(record | {"new_key": 1}))
    with pytest.raises(TrainingError, match="new_key") as caught:
        report_run(run)
    assert caught.value.hint


def test_a_bundle_gets_a_card_with_what_its_manifest_says(quick_run: Path, tmp_path: Path) -> None:
    _, manifest = load_run(quick_run)
    manifest = manifest.model_copy(update={"name": "mugs", "licence": "Apache-2.0"})
    write_card(quick_run, tmp_path / "MODEL_CARD.md", manifest)
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# mugs ")
    assert "| licence of the weights | Apache-2.0 |" in card
