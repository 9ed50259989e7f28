"""Files that a command was given, by name or by folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskserve.core.errors import ImageMissingError

__all__ = ["expand_inputs"]


def expand_inputs(inputs: Sequence[Path], suffixes: frozenset[str]) -> list[Path]:
    """The files that are meant, each once, folders replaced by what is directly in them.

    Args:
        inputs: Files, whatever they are called, and folders.
        suffixes: Of the files in folders that count, in lower case with the dot.

    Raises:
        ImageMissingError: A folder holds no such file.
    """
    found: dict[Path, Path] = {}
    for path in inputs:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
            if not files:
                kinds = ", ".join(sorted(suffixes))
                raise ImageMissingError(f"The folder {path} holds nothing to read ({kinds}).")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())
