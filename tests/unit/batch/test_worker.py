from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api_fakes import make_manifest
from batch_runs import BROKEN, make_photos, rows_of
from maskserve.batch.run import Run, open_run, settings_of
from maskserve.batch.worker import PartWorker
from maskserve.core.errors import EngineError
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import read_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.style import Style


def begin(folder: Path, *, pictures: Style | None = None) -> Run:
    settings = settings_of(
        [str(folder / "photos")], make_manifest(), pictures=pictures, part_photos=5
    )
    return open_run(str(folder / "out"), settings)


def test_each_broken_photo_is_a_row_with_its_error(
    tmp_path: Path, predictor: EnginePredictor
) -> None:
    make_photos(tmp_path / "photos", 7)
    run = begin(tmp_path)
    worker = PartWorker(run, predictor)
    seen = []
    summaries = [worker.work(part, on_photo=lambda: seen.append(1)) for part in range(run.parts)]
    assert len(seen) == run.photos == 12
    assert sum(summary.failed for summary in summaries) == len(BROKEN)
    photos, instances = rows_of(tmp_path / "out")
    errors = {Path(row["photo"]).name: row["error_code"] for row in photos if row["error_code"]}
    assert errors == {name: code for name, (_, code) in BROKEN.items()}
    assert [row["photo_index"] for row in photos] == list(range(12))
    assert len(instances) == 14
    assert all(row["picture"] is None for row in photos)


class PickyPredictor(EnginePredictor):
    """Fails on photos that are wider than high."""

    def predict(self, image: Image, *, min_score: float | None = None) -> Instances:
        if image.shape[1] > image.shape[0]:
            raise EngineError("OpenVINO failed.")
        return super().predict(image, min_score=min_score)


def test_an_engine_that_fails_on_a_photo_does_not_stop_the_others(
    tmp_path: Path, predictor: EnginePredictor
) -> None:
    make_photos(tmp_path / "photos", 9)
    run = begin(tmp_path)
    worker = PartWorker(run, PickyPredictor(predictor._engine, predictor.manifest))
    for part in range(run.parts):
        worker.work(part)
    codes = [row["error_code"] for row in rows_of(tmp_path / "out")[0]]
    assert codes.count("engine_failed") > 0
    assert codes.count(None) > 0


@pytest.mark.parametrize("style", ["overlay", "mask"])
def test_pictures_lie_where_the_rows_say(
    tmp_path: Path, predictor: EnginePredictor, style: Style
) -> None:
    make_photos(tmp_path / "photos", 7)
    run = begin(tmp_path, pictures=style)
    worker = PartWorker(run, predictor)
    for part in range(run.parts):
        worker.work(part)
    photos, _ = rows_of(tmp_path / "out")
    for row in photos:
        if row["error_code"] is None:
            drawn = read_image(tmp_path / "out" / row["picture"])
            assert drawn.shape == (row["height"], row["width"], 3)
            if style == "mask":
                assert np.count_nonzero(drawn[..., 0]) == row["masked_px"]
    assert len(list((tmp_path / "out").rglob("pictures/*/*"))) == 7
