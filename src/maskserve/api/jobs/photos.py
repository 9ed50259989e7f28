"""The photos of a job one after another, whether they came as files, in a ZIP or in a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskserve.api.jobs.archive import list_photos, opened, read_photo
from maskserve.api.jobs.store import Upload
from maskserve.api.jobs.uploads import UploadLimits
from maskserve.core.errors import ImageError
from maskserve.core.predictor import Image
from maskserve.runtime.video import open_video, read_frames

__all__ = ["JobPhoto", "picture_name", "read_photos"]

_UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*]')
_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class JobPhoto:
    """A photo or a frame.

    Attributes:
        file: Its name, as the client or the ZIP has it; of a frame, the video's.
        read: Gives the encoded photo or, of a frame, uint8 (H, W, 3) RGB; raises ImageError.
        frame: Number of a frame, 0-based; None for a photo.
        time_s: When in the video it is shown.
    """

    file: str
    read: Callable[[], bytes | Image]
    frame: int | None = None
    time_s: float | None = None


def read_photos(
    folder: Path, uploads: Sequence[Upload], *, limits: UploadLimits, frame_step: int = 1
) -> Iterator[JobPhoto]:
    """All photos of a job, in the order of its files; nothing but frames is read ahead.

    A video that cannot be read is one photo that cannot be read.

    Args:
        folder: Where the uploads are.
        uploads: What was received.
        limits: As when they were received.
        frame_step: Of a video, each so-many-th frame.
    """
    for upload in uploads:
        path = folder / upload.file
        match upload.kind:
            case "photo":
                yield JobPhoto(upload.name, path.read_bytes)
            case "archive":
                yield from _members(path, limits)
            case "video":
                try:
                    yield from _frames(path, upload.name, frame_step)
                except ImageError as error:
                    yield JobPhoto(upload.name, partial(_raise, _without_path(error, path)))


def picture_name(position: int, file: str) -> str:
    """Where a drawn photo lies in the ZIP of pictures: a name that is safe to unpack and unique."""
    parts = [_UNSAFE.sub("_", part)[-_NAME_CHARACTERS:] for part in re.split(r"[\\/]", file)]
    *folders, name = [part for part in parts if part not in ("", ".", "..")] or ["photo"]
    stem = name.rpartition(".")[0] or name
    return "/".join([*folders, f"{position:05d}-{stem}.jpg"])


def _members(path: Path, limits: UploadLimits) -> Iterator[JobPhoto]:
    photos = list_photos(path, max_photos=limits.max_photos, max_bytes=limits.max_bytes)
    with opened(path) as archive:
        for info in photos:
            read = partial(read_photo, archive, info, max_bytes=limits.image.max_bytes)
            yield JobPhoto(info.filename, read)


def _frames(path: Path, name: str, frame_step: int) -> Iterator[JobPhoto]:
    video = open_video(path)
    for number, frame in enumerate(read_frames(path)):
        if number % frame_step == 0:
            time_s = round(number / video.frames_per_second, 3)
            yield JobPhoto(name, partial(_identity, frame), frame=number, time_s=time_s)


def _identity(frame: Image) -> Image:
    return frame


def _without_path(error: ImageError, path: Path) -> ImageError:
    """Where the server keeps a video is nobody's business."""
    return type(error)(error.message.replace(str(path), "The video"), hint=error.hint)


def _raise(error: ImageError) -> bytes:
    raise error
