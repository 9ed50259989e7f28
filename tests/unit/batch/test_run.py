from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api_fakes import make_manifest
from batch_runs import make_photos, rows_of
from maskserve.batch.run import Run, open_run, settings_of
from maskserve.batch.worker import PartWorker
from maskserve.core.errors import ImageMissingError, OutputError, ParameterError
from maskserve.runtime.predictor import EnginePredictor

Begin = Callable[..., Run]


@pytest.fixture
def begin(tmp_path: Path) -> Begin:
    """Begin or find the run of the photos in ``tmp_path / "photos"``."""

    def open_it(*inputs: Path, out: str = "out", **settings: Any) -> Run:
        settings = {"part_photos": 4} | settings
        addresses = [str(path) for path in inputs or (tmp_path / "photos",)]
        return open_run(str(tmp_path / out), settings_of(addresses, make_manifest(), **settings))

    return open_it


class TestBeginning:
    def test_every_photo_is_in_one_part(self, begin: Begin, tmp_path: Path) -> None:
        make_photos(tmp_path / "photos", 6)
        run = begin()
        assert (run.photos, run.left_out, run.parts) == (11, 1, 3)
        photos = [photo for part in range(run.parts) for photo in run.photos_of(part)]
        assert [photo.index for photo in photos] == list(range(11))
        files = {str(path) for path in (tmp_path / "photos").rglob("*.*") if path.suffix != ".txt"}
        assert {photo.address for photo in photos} == files

    def test_inputs_that_lie_in_others_count_once(self, begin: Begin, tmp_path: Path) -> None:
        photos = make_photos(tmp_path / "photos", 6)
        (tmp_path / "link").symlink_to(photos / "0")
        alone = tmp_path / "alone.jpg"
        alone.touch()
        run = begin(photos / "0", alone, photos, photos, photos / "zero.jpg", tmp_path / "link")
        assert run.settings.inputs == (str(alone), str(photos))
        assert run.photos == 12

    @pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
    def test_a_name_may_be_any_bytes(
        self, begin: Begin, tmp_path: Path, predictor: EnginePredictor
    ) -> None:
        folder = os.fsencode(make_photos(tmp_path / "photos", 0))
        os.rename(folder + b"/zero.jpg", folder + b"/caf\xe9.jpg")  # noqa: PTH104
        run = begin()
        worker = PartWorker(run, predictor)
        assert [worker.work(part).failed for part in range(run.parts)] == [4, 1]
        photos, _ = rows_of(tmp_path / "out")
        assert any(row["photo"].endswith("/caf\\udce9.jpg") and row["bytes"] == 0 for row in photos)

    def test_without_photos_there_is_no_run(self, begin: Begin, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        with pytest.raises(ImageMissingError, match="nothing to read"):
            begin()
        make_photos(tmp_path / "photos", 1)
        assert begin().photos == 6

    @pytest.mark.parametrize("out", [".", "photos", "photos/out"])
    def test_photos_and_tables_lie_apart(self, begin: Begin, tmp_path: Path, out: str) -> None:
        make_photos(tmp_path / "photos", 1)
        with pytest.raises(OutputError, match="lies within the input"):
            begin(out=out)

    def test_tables_of_nobody_knows_what_are_left_alone(self, begin: Begin, tmp_path: Path) -> None:
        make_photos(tmp_path / "photos", 1)
        (tmp_path / "out" / "photos").mkdir(parents=True)
        (tmp_path / "out" / "photos" / "part-00000.parquet").touch()
        with pytest.raises(OutputError, match=r"run\.json"):
            begin()


class TestGoingOn:
    def test_it_keeps_to_the_photos_that_it_began_with(self, begin: Begin, tmp_path: Path) -> None:
        make_photos(tmp_path / "photos", 6)
        first = begin()
        make_photos(tmp_path / "photos", 20)
        again = begin()
        assert (again.photos, again.settings) == (first.photos, first.settings)

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"min_score": 0.7}, r"min_score \(0\.5, now 0\.7\)"),
            ({"part_photos": 5}, r"part_photos \(4, now 5\)"),
            ({"pictures": "mask"}, r"pictures \(None, now mask\)"),
        ],
    )
    def test_other_settings_are_refused(
        self, begin: Begin, tmp_path: Path, changed: dict[str, Any], named: str
    ) -> None:
        make_photos(tmp_path / "photos", 1)
        begin()
        with pytest.raises(ParameterError, match=named):
            begin(**changed)

    def test_another_model_and_other_inputs_are_refused(self, begin: Begin, tmp_path: Path) -> None:
        make_photos(tmp_path / "photos", 1)
        out = str(begin().folder)
        manifest = make_manifest().model_copy(update={"files": {"model.onnx": "1" * 64}})
        settings = settings_of([str(tmp_path / "other")], manifest, part_photos=4)
        with pytest.raises(ParameterError, match=r"settings: inputs, model_sha256 \(.*\)\."):
            open_run(out, settings)

    def test_a_record_that_is_none_is_an_error(self, begin: Begin, tmp_path: Path) -> None:
        make_photos(tmp_path / "photos", 1)
        begin()
        for text in ("", "[]", json.dumps({"inputs": 3})):
            (tmp_path / "out" / "run.json").write_text(text)
            with pytest.raises(OutputError, match=r"run\.json"):
                begin()

    def test_what_is_done_is_known(
        self, begin: Begin, tmp_path: Path, predictor: EnginePredictor
    ) -> None:
        make_photos(tmp_path / "photos", 6)
        run = begin()
        assert run.done() == {}
        worker = PartWorker(pickle.loads(pickle.dumps(run)), predictor)
        summaries = {part: worker.work(part) for part in (0, 2)}
        assert run.done() == summaries

    @pytest.mark.parametrize("table", ["photos", "instances"])
    @pytest.mark.parametrize("damage", ["empty", "cut", "gone", "of another part"])
    def test_a_damaged_part_is_not_done(
        self,
        begin: Begin,
        tmp_path: Path,
        predictor: EnginePredictor,
        table: str,
        damage: str,
    ) -> None:
        make_photos(tmp_path / "photos", 6)
        run = begin()
        worker = PartWorker(run, predictor)
        for part in range(3):
            worker.work(part)
        file = tmp_path / "out" / table / "part-00001.parquet"
        content = file.read_bytes()
        if damage == "gone":
            file.unlink()
        elif damage == "of another part":
            file.write_bytes(file.with_name("part-00002.parquet").read_bytes())
        else:
            file.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
        assert run.done().keys() == {0, 2}
