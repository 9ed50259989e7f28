from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskserve.core.errors import ImageDecodeError, ImageMissingError
from maskserve.runtime.registry import load_predictor
from maskserve.runtime.video import draw_video, open_video, read_frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five frames of 80 x 60 at 10 a second, ever redder."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (80, 60))
    for i in range(5):
        writer.write(np.full((60, 80, 3), (0, 0, 50 * i), np.uint8))
    writer.release()
    return path


def test_the_header(clip: Path) -> None:
    video = open_video(clip)
    assert video.frames_per_second == pytest.approx(10)
    assert video.frame_count == 5
    assert video.frame_size == (60, 80)


def test_a_damaged_video_is_no_noise(tmp_path: Path) -> None:
    """The decoder would tell stderr of every damaged block."""
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    program = (
        "import pathlib, sys; from maskserve.runtime.video import open_video\n"
        "try: open_video(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, damaged], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("ImageDecodeError\n", "")


def test_frames_come_in_order_and_in_rgb(clip: Path) -> None:
    reds = [int(frame[30, 40, 0]) for frame in read_frames(clip)]
    assert len(reds) == 5
    assert np.abs(np.array(reds) - 50 * np.arange(5)).max() < 8
    assert all(frame[30, 40, 2] < 20 for frame in read_frames(clip))


def test_a_video_is_drawn_and_its_coverage_counted(
    clip: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    ticks: list[None] = []
    coverage = draw_video(
        load_predictor(tiny_bundle, threads=1),
        clip,
        target=tmp_path / "out" / "clip.mp4",
        coverage_csv=tmp_path / "out" / "clip.csv",
        style="mask",
        on_frame=lambda: ticks.append(None),
    )
    assert coverage.frame_count == len(ticks) == 5
    assert coverage.masked_percent == 40
    drawn = list(read_frames(tmp_path / "out" / "clip.mp4"))
    assert [frame.shape for frame in drawn] == [(60, 80, 3)] * 5
    assert drawn[0][18, 24].min() > 200
    assert drawn[0][50, 10].max() < 50
    with (tmp_path / "out" / "clip.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[3] == {
        "frame": "3",
        "time_s": "0.300",
        "instances": "2",
        "masked_percent": "40.0",
        "masked_percent balloon": "16.0",
        "masked_percent kite": "25.0",
    }
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["clip.csv", "clip.mp4"]


def test_a_missing_video(tmp_path: Path) -> None:
    with pytest.raises(ImageMissingError, match=r"no file .*nowhere\.mp4"):
        open_video(tmp_path / "nowhere.mp4")


def test_what_is_no_video_leaves_nothing_behind(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("hello")
    with pytest.raises(ImageDecodeError, match="not a video"):
        draw_video(
            load_predictor(tiny_bundle, threads=1),
            path,
            target=tmp_path / "out" / "text.mp4",
            coverage_csv=tmp_path / "out" / "text.csv",
        )
    assert not (tmp_path / "out").exists()
