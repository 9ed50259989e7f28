from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import pytest

from maskserve.cli.predict import plan_jobs
from maskserve.core.errors import ImageMissingError, OutputError
from maskserve.core.masks import decode_rle
from maskserve.runtime.image_io import read_image

Run = Callable[..., CompletedProcess[str]]


class TestPlan:
    def test_a_folder_stands_for_its_photos_and_videos(self, photos: Path, tmp_path: Path) -> None:
        (photos / "c.MOV").touch()
        jobs = plan_jobs([photos], tmp_path / "out")
        assert [(job.source.name, job.target.name, job.is_video) for job in jobs] == [
            ("a.png", "a.png", False),
            ("b.jpg", "b.jpg", False),
            ("c.MOV", "c.mp4", True),
        ]

    def test_inputs_of_one_name_get_numbers(self, tmp_path: Path) -> None:
        inputs = [tmp_path / name for name in ("x/a.jpg", "y/a.jpg", "z/A.png", "z/a-2.jpg")]
        jobs = plan_jobs(inputs, tmp_path / "out")
        assert [job.target.name for job in jobs] == ["a.jpg", "a-2.jpg", "A-3.png", "a-2-2.jpg"]

    def test_an_input_that_is_named_twice_counts_once(self, photos: Path, tmp_path: Path) -> None:
        jobs = plan_jobs([photos / "b.jpg", photos, photos / ".." / photos.name], tmp_path / "out")
        assert [job.source.name for job in jobs] == ["b.jpg", "a.png"]

    def test_masks_are_never_written_as_jpeg(self, photos: Path, tmp_path: Path) -> None:
        jobs = plan_jobs([photos / "b.jpg"], tmp_path / "out", style="mask")
        assert jobs[0].target.name == "b.png"

    def test_a_photo_without_a_known_suffix_becomes_a_png(self, tmp_path: Path) -> None:
        assert plan_jobs([tmp_path / "photo"], tmp_path / "out")[0].target.name == "photo.png"

    def test_inputs_are_never_overwritten(self, photos: Path) -> None:
        with pytest.raises(OutputError, match=r"a\.png is an input") as caught:
            plan_jobs([photos], photos / "sub" / "..")
        assert caught.value.hint
        assert "--out" in caught.value.hint

    def test_a_folder_without_photos_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ImageMissingError, match="holds nothing to read"):
            plan_jobs([tmp_path], tmp_path / "out")


def test_photos_are_drawn_and_their_percentages_shown(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    result = run("predict", photos, "--model", tiny_bundle, "--out", out, "--style", "mask")
    assert result.returncode == 0
    assert sorted(file.name for file in out.iterdir()) == ["a.png", "b.png"]
    assert np.count_nonzero(read_image(out / "a.png")[..., 0]) == 1920
    assert "1 balloon, 1 kite" in result.stdout
    assert "40.00" in result.stdout
    assert "60.00" in result.stdout


def test_brackets_in_file_names_are_no_markup(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    photo = (photos / "a.png").rename(photos / "a [red] [1].png")
    result = run("predict", photo, "--model", tiny_bundle, "--out", tmp_path / "[out]")
    assert result.returncode == 0
    assert "a [red] [1].png" in result.stdout
    assert "[out]" in result.stdout


def test_json_holds_masks_that_add_up_to_the_coverage(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "drawn"
    photo = photos / "a.png"
    assert run("predict", photo, "--model", tiny_bundle, "--out", out, "--json").returncode == 0
    document = json.loads((out / "a.json").read_text())
    masks = [decode_rle(instance["mask"]) for instance in document["instances"]]
    assert document["image"] == {"width": 80, "height": 60}
    assert np.count_nonzero(masks[0] | masks[1]) == document["coverage"]["masked_px"] == 1920
    assert document["instances"][1]["class"] == "kite"
    assert document["instances"][1]["bbox_xywh"] == [32, 24, 40, 30]
    assert document["model"] == {"name": "tiny", "version": "1"}


def test_min_score_reaches_the_model(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    arguments = ("predict", photos / "a.png", "--model", tiny_bundle, "--out", tmp_path / "drawn")
    assert "2 balloon, 1 kite" in run(*arguments, "--min-score", 0.1).stdout
    assert "nothing" in run(*arguments, "--min-score", 0.99).stdout


def test_a_broken_photo_does_not_stop_the_others(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (photos / "aa.jpg").write_text("broken")
    out = tmp_path / "drawn"
    result = run("predict", photos, tmp_path / "gone.jpg", "--model", tiny_bundle, "--out", out)
    assert result.returncode == 3
    assert "aa.jpg: This is not an image" in result.stderr
    assert "gone.jpg cannot be read" in result.stderr
    assert sorted(file.name for file in out.iterdir()) == ["a.png", "b.jpg"]
    assert "b.jpg" in result.stdout


def test_a_video_gets_a_table_of_its_frames(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (80, 60))
    for _ in range(3):
        writer.write(np.zeros((60, 80, 3), np.uint8))
    writer.release()
    out = tmp_path / "drawn"
    result = run("predict", clip, "--model", tiny_bundle, "--out", out)
    assert result.returncode == 0
    assert "3 frames" in result.stdout
    assert sorted(file.name for file in out.iterdir()) == ["clip.csv", "clip.mp4"]
    assert len((out / "clip.csv").read_text().splitlines()) == 4


def test_an_output_that_cannot_be_written_stops_at_once(
    run: Run, photos: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "drawn").write_text("in the way")
    result = run("predict", photos, "--model", tiny_bundle, "--out", tmp_path / "drawn")
    assert result.returncode == 7
    assert result.stderr.count("Error:") == 1


@pytest.mark.parametrize("flag", [("--style", "cubist"), ("--min-score", "2")])
def test_bad_values_of_flags_exit_with_2(run: Run, photos: Path, flag: tuple[str, str]) -> None:
    assert run("predict", photos, "--out", "drawn", *flag).returncode == 2
