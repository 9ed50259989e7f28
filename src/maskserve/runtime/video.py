"""Videos: finding instances in every frame, drawing them, and counting covered pixels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskserve.core.errors import ImageDecodeError, ImageMissingError, OutputError
from maskserve.core.predictor import Image, Predictor
from maskserve.runtime.files import replacing
from maskserve.runtime.render import Style, draw

__all__ = ["VIDEO_SUFFIXES", "Video", "VideoCoverage", "draw_video", "open_video", "read_frames"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
"""Suffixes, in lower case, of the files that are taken for videos."""

_USUAL_FRAMES_PER_SECOND = 25.0


@dataclass(frozen=True, slots=True)
class Video:
    """What a video's header says.

    Attributes:
        path: The file.
        frames_per_second: 25 where the header gives none.
        frame_count: As the header estimates it; None where it does not.
        frame_size: Height and width in pixels, as stored.
    """

    path: Path
    frames_per_second: float
    frame_count: int | None
    frame_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class VideoCoverage:
    """Coverage of a whole video.

    Attributes:
        frame_count: Frames that were read.
        masked_percent: Mean over the frames, 0..100.
    """

    frame_count: int
    masked_percent: float


def open_video(path: Path) -> Video:
    """Read a video's header.

    Raises:
        ImageMissingError: There is no such file.
        ImageDecodeError: It is not a video, or of a kind that OpenCV cannot read.
    """
    with _captured(path) as capture:
        frames_per_second = capture.get(cv2.CAP_PROP_FPS)
        frame_count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    if not 0 < frames_per_second < 1000:
        frames_per_second = _USUAL_FRAMES_PER_SECOND
    return Video(path, frames_per_second, frame_count if frame_count > 0 else None, (height, width))


def read_frames(path: Path) -> Iterator[Image]:
    """The frames of a video one after another, upright: uint8, shape (H, W, 3), RGB.

    Raises:
        ImageMissingError: There is no such file.
        ImageDecodeError: No frame can be decoded.
    """
    with _captured(path) as capture:
        decoded, frame = capture.read()
        if not decoded:
            raise ImageDecodeError(f"{path}: no frame of the video can be decoded.")
        while decoded:
            yield np.ascontiguousarray(frame[:, :, ::-1])
            decoded, frame = capture.read()


def draw_video(
    predictor: Predictor,
    source: Path,
    *,
    target: Path,
    coverage_csv: Path,
    style: Style = "overlay",
    min_score: float | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> VideoCoverage:
    """Find and draw the instances of every frame.

    Args:
        predictor: Finds them, frame by frame.
        source: The video; its sound is not kept.
        target: The drawn video, ``.mp4`` (MPEG-4), of the same speed and size; of an odd width
            or height one pixel is lost, since the format cannot have one.
        coverage_csv: A table with one row for each frame: its number, its time in seconds,
            how many instances, and the percentage of masked pixels in all and by class.
        style: As for :func:`maskserve.runtime.render.draw`.
        min_score: As for ``predict``.
        on_frame: Called after each frame, for progress.

    Raises:
        ImageError: ``source`` cannot be read.
        OutputError: A result cannot be written.
    """
    frames_per_second = open_video(source).frames_per_second
    class_names = predictor.manifest.classes
    total_percent, frame_count = 0.0, 0
    with (
        replacing(target) as drawn_path,
        replacing(coverage_csv) as csv_path,
        csv_path.open("w", newline="", encoding="utf-8") as csv_file,
        _Mp4Writer(drawn_path, frames_per_second) as writer,
    ):
        table = csv.writer(csv_file, lineterminator="\n")
        table.writerow(
            ["frame", "time_s", "instances", "masked_percent"]
            + [f"masked_percent {name}" for name in class_names]
        )
        for frame in read_frames(source):
            instances = predictor.predict(frame, min_score=min_score)
            coverage = instances.coverage()
            writer.write(draw(frame, instances, style=style))
            table.writerow(
                [
                    frame_count,
                    f"{frame_count / frames_per_second:.3f}",
                    len(instances),
                    coverage.masked_percent,
                    *(coverage.per_class[name].masked_percent for name in class_names),
                ]
            )
            total_percent += coverage.masked_percent
            frame_count += 1
            on_frame()
    return VideoCoverage(frame_count, round(total_percent / frame_count, 4))


class _Mp4Writer:
    """Writes frames, all of the first one's size."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._frames_per_second = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> _Mp4Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: Image) -> None:
        if self._writer is None:
            height, width = frame.shape[:2]
            self._writer = cv2.VideoWriter(
                str(self._path),
                cv2.VideoWriter.fourcc(*"mp4v"),
                self._frames_per_second,
                (width, height),
            )
            if not self._writer.isOpened():
                raise OutputError(f"OpenCV cannot write a video of {width} x {height} pixels.")
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))


@contextmanager
def _captured(path: Path) -> Iterator[cv2.VideoCapture]:
    if not path.is_file():
        raise ImageMissingError(f"There is no file {path}.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # or damaged files fill stderr
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ImageDecodeError(f"{path} is not a video that OpenCV can read.")
        yield capture
    finally:
        capture.release()
