"""Where annotations lie in a folder, as every format's reader gets to know it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskserve.core.errors import DatasetError

__all__ = [
    "AnnotationFiles",
    "Source",
    "is_split_name",
    "json_files",
    "only_file",
    "place_in",
    "read_json",
    "usual_split_name",
]

AnnotationFiles = Mapping[str | None, Path]
"""By split; the key None is for annotations of the folder itself, which has no splits.

Formats that have a file for each photo or instance name the folder of these files.
"""

_SPLIT_NAME = re.compile(r"(stage\d_)?(train|val(?:id|idation)?|test)[\d_-]*")


@dataclass(frozen=True, slots=True)
class Source:
    """One split of a data set.

    Attributes:
        name: Name of the data set, with its split, for people.
        root: The data set's folder.
        split: None for the folder itself.
        files: Annotation files, or folders of them, of all splits.
        class_name: Name of the only class, for formats that need not name it.
        class_attribute: VIA's region attribute that holds the class; None to find it.
    """

    name: str
    root: Path
    split: str | None
    files: AnnotationFiles
    class_name: str
    class_attribute: str | None = None

    @property
    def file(self) -> Path:
        """The annotation file of this split, or the folder of its annotation files."""
        return self.files[self.split]

    def place_of(self, path: Path) -> str:
        """A file as problems name it."""
        return place_in(self.root, path)


def place_in(root: Path, path: Path) -> str:
    """``path`` relative to ``root`` where it lies in there, and as it is where it does not."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def is_split_name(name: str) -> bool:
    """Whether a file or folder is called like a part of a data set.

    Such as ``train``, ``val2017`` or, in Kaggle's competitions, ``stage1_train``.
    """
    return usual_split_name(name) is not None


def usual_split_name(name: str) -> str | None:
    """``train``, ``val`` or ``test``, whichever a name like ``validation`` or ``val2017`` means."""
    match = _SPLIT_NAME.fullmatch(name.lower())
    if match is None:
        return None
    return "val" if match[2].startswith("val") else match[2]


def read_json(path: Path) -> Any:
    """Parse a file as JSON; a byte order mark, as some editors leave it, does no harm.

    Raises:
        DatasetError: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}.") from None


def json_files(folder: Path, looks_right: Callable[[object], bool]) -> list[Path]:
    """The JSON files directly in a folder whose content looks right, sorted by name."""
    return [path for path in sorted(folder.glob("*.json")) if _content_matches(path, looks_right)]


def only_file(paths: Sequence[Path]) -> Path:
    """The one file of ``paths``, which are not empty.

    Raises:
        DatasetError: There are several, and nothing tells which one is meant.
    """
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise DatasetError(
            f"{paths[0].parent} has several annotation files: {names}.", hint="Keep one of them."
        )
    return paths[0]


def _content_matches(path: Path, looks_right: Callable[[object], bool]) -> bool:
    try:
        return looks_right(read_json(path))
    except DatasetError:
        return False
