"""Downloading a public data set so that what arrives is what was published, or nothing.

The archive itself is not trusted. Of it are taken only the files that are listed in the package,
each with its SHA-256: whatever else an archive may hold, such as paths that lead out of it, links
or files that unpack to more than any disk holds, is never looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from maskserve.core.errors import DatasetError, DatasetProblem, ParameterError
from maskserve.datasets.download import OnProgress, download
from maskserve.datasets.target import new_folder

__all__ = ["RELEASE_NAMES", "Release", "fetch_release", "find_release"]


@dataclass(frozen=True, slots=True)
class Release:
    """A published archive.

    Attributes:
        url: Where the ZIP file is.
        folder: The folder in the archive that becomes the data set.
        max_bytes: More than this is neither downloaded nor unpacked.
        digests: SHA-256 of all files that are wanted, by their paths in ``folder``.
    """

    url: str
    folder: str
    max_bytes: int
    digests: Mapping[str, str]


_RELEASES = {
    "balloon": (
        "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip",
        50_000_000,
    )
}

RELEASE_NAMES = tuple(_RELEASES)
"""What :func:`find_release` knows."""


def find_release(name: str) -> Release:
    """A data set that can be downloaded.

    Its publisher states no checksum of the archive. The digests are those of its content as it
    was unpacked when maskserve was made: all photos have the sizes that the annotations state.

    Raises:
        ParameterError: There is none of this name.
    """
    if name not in _RELEASES:
        raise ParameterError(
            f"There is no release “{name}”.", hint=f"Known: {', '.join(RELEASE_NAMES)}."
        )
    url, max_bytes = _RELEASES[name]
    lines = (files(__package__) / f"{name}.sha256").read_text(encoding="utf-8").splitlines()
    digests = {path: digest for digest, path in (line.split("  ", 1) for line in lines)}
    return Release(url, name, max_bytes, digests)


def fetch_release(release: Release, out: Path, *, on_progress: OnProgress | None = None) -> None:
    """Download a release and unpack it, once it is known to be what was published.

    While it is downloaded it lies beside ``out`` in a file that ends in ``.part``. If that is
    interrupted the next call goes on where this one stopped.

    Args:
        release: What to download.
        out: A folder that is not there yet, or empty.
        on_progress: Is told how many bytes are there, and of how many, if the server says so.

    Raises:
        DownloadError: There is no connection, it broke, or the server has no such file.
        DatasetError: What was downloaded is not the release. It is deleted.
        OutputError: ``out`` holds something, or cannot be written.
    """
    part = out.absolute().with_name(release.url.rpartition("/")[2] + ".part")
    with new_folder(out) as folder:
        download(release.url, part, max_bytes=release.max_bytes, on_progress=on_progress)
        try:
            _unpack(part, release, folder)
        except DatasetError:
            part.unlink()
            raise
    part.unlink()


def _unpack(archive: Path, release: Release, folder: Path) -> None:
    """Write the files of a release into a folder.

    Raises:
        DatasetError: Files are missing or differ; all of them are listed.
    """
    problems: list[DatasetProblem] = []
    try:
        with ZipFile(archive) as content:
            members = {member.filename: member for member in content.infolist()}
            left = release.max_bytes
            for path, digest in release.digests.items():
                member = members.get(f"{release.folder}/{path}")
                if member is None:
                    problems.append(DatasetProblem(path, "is missing"))
                    continue
                left -= member.file_size
                if left < 0:
                    problems.append(DatasetProblem(path, "unpacks to too many bytes"))
                    break
                with content.open(member) as file:
                    # Never more than it claims to have: a bomb claims little and unpacks to much.
                    data = file.read(member.file_size)
                if sha256(data).hexdigest() != digest:
                    problems.append(DatasetProblem(path, "is not the file that was published"))
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        problems.append(DatasetProblem(archive.name.removesuffix(".part"), str(error)))
    if problems:
        raise DatasetError(
            f"What {release.url} delivered is not the release. It was deleted.",
            problems=problems,
            hint="Try again; if it stays like that, the file was replaced.",
        )
