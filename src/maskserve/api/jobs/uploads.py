"""From the body of a request to files: streamed, counted, and looked into before it is accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import IO

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio import multipart

from maskserve.api.jobs.archive import list_photos
from maskserve.api.jobs.store import Upload, UploadKind
from maskserve.api.request import Request
from maskserve.api.settings import ServerSettings
from maskserve.core.errors import (
    ImageError,
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    JobTooLargeError,
    ParameterError,
)
from maskserve.runtime.image_io import ImageLimits
from maskserve.runtime.video import open_video

__all__ = [
    "FIELD",
    "RAW_MEDIA_TYPES",
    "UploadLimits",
    "announced_size",
    "receive",
    "upload_limits",
]

FIELD = "images"
"""Name of the multipart fields."""

RAW_MEDIA_TYPES = (
    "application/zip",
    "application/x-zip-compressed",
    "application/octet-stream",
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
    "video/x-msvideo",
)

_WAYS = (
    f"Send several photos as fields “{FIELD}” of a form (curl -F {FIELD}=@a.jpg "
    f"-F {FIELD}=@b.jpg), or a ZIP or a video as the body (Content-Type: application/zip)."
)
_CHUNK_BYTES = 64 * 1024
_MOST_BUFFERED = 1024 * 1024
_MAGIC_BYTES = 16
_NAME_CHARACTERS = 255
_NAME_OF_KIND: dict[UploadKind, str] = {
    "photo": "photo",
    "archive": "archive.zip",
    "video": "video",
}


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What a job may bring along.

    Attributes:
        max_bytes: Of the whole body, and of the photos in archives once they are unpacked.
        max_photos: Photos and frames.
        image: Of one photo or frame.
    """

    max_bytes: int
    max_photos: int
    image: ImageLimits


def upload_limits(settings: ServerSettings) -> UploadLimits:
    """What the settings allow."""
    return UploadLimits(
        max_bytes=min(settings.job_max_bytes, settings.jobs_max_bytes),
        max_photos=settings.job_max_photos,
        image=ImageLimits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels),
    )


def announced_size(request: Request, limits: UploadLimits) -> int:
    """Bytes that the body has at most.

    Raises:
        JobTooLargeError: More than a job may have.
    """
    size = request.content_length
    if size is None:
        return limits.max_bytes
    if size > limits.max_bytes:
        raise _too_many_bytes(limits)
    return int(size)


def receive(
    request: Request, folder: Path, limits: UploadLimits, *, frame_step: int = 1
) -> list[Upload]:
    """Write what a request sends into a folder, and see what it is.

    Photos are not looked into: a broken one is told of in the results. A photo that is larger
    than any that is accepted is cut, since it will be refused all the same.

    Raises:
        ImageTypeError: The content type is not known.
        ImageMissingError: There is no photo in it.
        JobTooLargeError: Too many bytes or photos.
        ArchiveError: A ZIP that cannot be read.
        ImageTooLargeError: A video of too large frames.
        ParameterError: A form that is damaged, or has other fields.
    """
    request.max_content_length = limits.max_bytes
    if request.mimetype == "multipart/form-data":
        parts = _parts_of_form(request, folder, limits)
    elif request.mimetype in RAW_MEDIA_TYPES or not request.mimetype:
        parts = _whole_body(request, folder)
    else:
        raise ImageTypeError(f"A body of type “{request.mimetype}” cannot be read.", hint=_WAYS)
    try:
        uploads = [_look_into(path, name, limits, frame_step) for path, name in parts]
    except RequestEntityTooLarge:
        raise _too_many_bytes(limits) from None
    if not sum(1 if upload.count is None else upload.count for upload in uploads):
        raise ImageMissingError("There is no photo in the request.", hint=_WAYS)
    _check_count(sum(upload.count or 0 for upload in uploads), limits)
    return uploads


def _whole_body(request: Request, folder: Path) -> Iterator[tuple[Path, str]]:
    path = folder / "000000"
    with path.open("wb") as file:
        for chunk in _chunks(request):
            file.write(chunk)
    if path.stat().st_size:
        yield path, ""


def _parts_of_form(
    request: Request, folder: Path, limits: UploadLimits
) -> Iterator[tuple[Path, str]]:
    """Each file of a form once it is written."""
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise ParameterError("The content type names no boundary of the form's parts.")
    decoder = multipart.MultipartDecoder(
        boundary.encode("latin-1", "replace"), _MOST_BUFFERED, max_parts=None
    )
    count = 0
    file: IO[bytes] | None = None
    name = ""
    try:
        for event in _events(decoder, _chunks(request)):
            match event:
                case multipart.Field():
                    raise _unknown_field(event.name, "is a text, not a file")
                case multipart.File():
                    if event.name != FIELD:
                        raise _unknown_field(event.name, "is not known")
                    _check_count(count + 1, limits)
                    file, name = (folder / f"{count:06d}").open("wb"), event.filename
                    count += 1
                case multipart.Data() if file is not None:
                    file.write(event.data)
                    if not event.more_data:
                        file.close()
                        path, file = Path(file.name), None
                        if name or path.stat().st_size:  # a browser sends an empty choice, too
                            yield path, name
    finally:
        if file is not None:
            file.close()


def _events(
    decoder: multipart.MultipartDecoder, chunks: Iterable[bytes]
) -> Iterator[multipart.Event]:
    try:
        for chunk in chunks:
            decoder.receive_data(chunk)
            while not isinstance(event := decoder.next_event(), multipart.NeedData):
                yield event
        decoder.receive_data(None)
        while not isinstance(event := decoder.next_event(), multipart.Epilogue):
            yield event
    except ValueError:
        raise ParameterError(
            "The form is damaged or incomplete.", hint="Let your HTTP library make it."
        ) from None


def _chunks(request: Request) -> Iterator[bytes]:
    stream = request.stream
    return request.in_parts(iter(lambda: stream.read(_CHUNK_BYTES), b""))


def _look_into(path: Path, name: str, limits: UploadLimits, frame_step: int) -> Upload:
    """What a file is, and how many photos it holds."""
    with path.open("rb") as file:
        kind = _kind_of(file.read(_MAGIC_BYTES))
    name = name[:_NAME_CHARACTERS].encode("utf-8", "replace").decode() or _NAME_OF_KIND[kind]
    count: int | None = 1
    match kind:
        case "archive":
            count = len(list_photos(path, max_photos=limits.max_photos, max_bytes=limits.max_bytes))
        case "video":
            count = _count_frames(path, limits, frame_step)
        case "photo" if path.stat().st_size > limits.image.max_bytes:
            os.truncate(path, limits.image.max_bytes + 1)
    return Upload(name, kind, path.name, count)


def _kind_of(head: bytes) -> UploadKind:
    """By the first bytes; no other file is ever given to the decoder of videos."""
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "archive"
    is_mp4 = head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"mif1")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    if is_mp4 or is_avi or head.startswith(b"\x1a\x45\xdf\xa3"):  # the last is Matroska, WebM
        return "video"
    return "photo"


def _count_frames(path: Path, limits: UploadLimits, frame_step: int) -> int | None:
    try:
        video = open_video(path)
    except ImageError:
        return 1  # its one line of results tells why
    height, width = video.frame_size
    if height * width > limits.image.max_pixels:
        raise ImageTooLargeError(
            f"The video has {width} x {height} pixels; at most {limits.image.max_pixels:,} are "
            "accepted."
        )
    return None if video.frame_count is None else ceil(video.frame_count / frame_step)


def _check_count(count: int, limits: UploadLimits) -> None:
    if count > limits.max_photos:
        raise JobTooLargeError(
            f"These are more than the {limits.max_photos} photos or frames that a job may have.",
            hint="Send several jobs.",
        )


def _too_many_bytes(limits: UploadLimits) -> JobTooLargeError:
    return JobTooLargeError(
        f"The request has more than {limits.max_bytes / 2**20:.0f} MiB.", hint="Send several jobs."
    )


def _unknown_field(name: str | None, what: str) -> ParameterError:
    return ParameterError(
        f"The field “{str(name)[:40]}” of the form {what}.",
        hint=f"With curl: -F {FIELD}=@a.jpg -F {FIELD}=@b.jpg; options go into the URL.",
    )
