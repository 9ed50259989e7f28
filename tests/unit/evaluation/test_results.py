from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from maskserve.core.errors import OutputError
from maskserve.datasets import Dataset
from maskserve.evaluation import (
    METRIC_NAMES,
    Metrics,
    annotated_instances,
    measure,
    metrics_table,
    write_metrics,
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


def test_table_shows_boxes_masks_and_the_classes_that_occur(metrics: Metrics) -> None:
    page = io.StringIO()
    Console(width=120, file=page).print(metrics_table(metrics))
    text = page.getvalue()
    assert "toys val: 1 photos, 1 instances" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert set(rows) == {"boxes", "masks", "masks of ball"}
    assert "100.0" in rows["masks"]
    assert "–" in rows["masks"]
