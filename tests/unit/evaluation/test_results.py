from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from maskserve.core import Instances
from maskserve.core.errors import DatasetError, OutputError
from maskserve.datasets import Dataset
from maskserve.evaluation import (
    METRIC_NAMES,
    Metrics,
    annotated_instances,
    measure,
    metrics_table,
    read_predictions,
    write_metrics,
    write_predictions,
)


@pytest.fixture
def metrics(make_dataset: Callable[..., Dataset]) -> Metrics:
    dataset = make_dataset([("ball", (10, 10, 60, 60))])
    return measure(dataset, [annotated_instances(dataset.samples[0], dataset.categories.names)])


def test_written_metrics_are_plain_json_with_null_for_not_measured(
    metrics: Metrics, tmp_path: Path
) -> None:
    write_metrics(tmp_path / "new" / "metrics.json", metrics)
    written = json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8"))
    assert set(written["bbox"]) == set(written["segm"]) == set(METRIC_NAMES)
    assert written["segm"]["AP"] == 100
    assert written["segm"]["APs"] is None
    assert written["per_class"]["ball"]["bbox"]["AP"] == 100
    assert (written["dataset"], written["photos"], written["instances"]) == ("toys val", 1, 1)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["metrics.json"]


def test_place_that_cannot_be_written_is_named(metrics: Metrics, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"metrics\.json"):
        write_metrics(tmp_path / "file" / "metrics.json", metrics)


def test_predictions_come_back_as_they_were(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    tmp_path: Path,
) -> None:
    dataset = make_dataset([("ball", (10, 10, 60, 60))], [], [("box", (5, 5, 9, 9))])
    predictions = [
        make_instances(("ball", (10, 12, 60, 60), 0.9), ("box", (1, 2, 3, 4), 0.25)),
        make_instances(),
        make_instances(("ball", (0, 0, 120, 100), 1.0)),
    ]
    path = tmp_path / "new" / "predictions.json"
    write_predictions(path, dataset, predictions)
    for back, before in zip(read_predictions(path, dataset), predictions, strict=True):
        assert back.class_names == dataset.categories.names
        assert back.image_size == before.image_size
        assert back.boxes_xyxy.tolist() == before.boxes_xyxy.tolist()
        assert back.scores.tolist() == before.scores.tolist()
        assert back.class_indices.tolist() == before.class_indices.tolist()
        assert back.rles() == before.rles()


def test_predictions_are_a_coco_results_file_with_the_ids_of_the_data_set(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    tmp_path: Path,
) -> None:
    dataset = make_dataset([], [])
    found = make_instances(
        ("star", (0, 0, 9, 9), 0.9), ("box", (10, 20, 40, 60), 0.5), classes=("star", "box")
    )
    write_predictions(tmp_path / "predictions.json", dataset, [make_instances(), found])
    (result,) = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert (result["image_id"], result["category_id"]) == (20, 8)
    assert (result["bbox"], result["score"]) == ([10, 20, 30, 40], 0.5)
    assert result["segmentation"]["size"] == [100, 120]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read"),
        ("not json", "does not hold predictions"),
        ('[{"image_id": 99}]', "does not hold predictions"),
        ('[{"image_id": 10}]', "does not hold predictions"),
        ("3", "does not hold predictions"),
    ],
)
def test_a_file_that_holds_no_predictions_for_these_photos_is_refused(
    make_dataset: Callable[..., Dataset], tmp_path: Path, text: str | None, complaint: str
) -> None:
    path = tmp_path / "predictions.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"predictions\.json {complaint}"):
        read_predictions(path, make_dataset([]))


def test_table_shows_boxes_masks_and_the_classes_that_occur(metrics: Metrics) -> None:
    page = io.StringIO()
    Console(width=120, file=page).print(metrics_table(metrics))
    text = page.getvalue()
    assert "toys val: 1 photos, 1 instances" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert set(rows) == {"boxes", "masks", "masks of ball"}
    assert "100.0" in rows["masks"]
    assert "–" in rows["masks"]
