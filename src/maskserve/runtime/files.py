"""Reading settings, and writing files so that nobody ever sees half of one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from maskserve.core.errors import OutputError, SettingsError

__all__ = ["read_toml", "replacing", "write_file"]


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a settings file.

    Raises:
        SettingsError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not a TOML file: {error}.") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, which takes the place of ``path`` at the end.

    It lies beside ``path`` and has the same suffix, since video writers choose their format by
    it. When the block fails it is removed, and ``path`` is left as it was.

    Raises:
        OutputError: The folder cannot be made or written to.
    """
    temporary = path.with_name(f".{path.stem}-{uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            hint="Choose a folder that you may write to, on a disk with room.",
        ) from error


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file through :func:`replacing`; text becomes UTF-8.

    Raises:
        OutputError: The folder or the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
