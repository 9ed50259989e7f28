"""Compiled models on disk, so that the next start need not compile them again."""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from maskserve.core.errors import OutputError
from maskserve.runtime.files import write_file

__all__ = ["ModelCache", "user_cache"]

_DIGEST_BYTES = hashlib.sha256().digest_size
_SUFFIX = ".compiled"


class ModelCache:
    """A folder of compiled models, each under the hash of all that it depends on.

    A cache only saves time: where it cannot be read or written, everything works without it. A
    file that is not as it was written counts as not there.

    Args:
        folder: Made when something is stored.
        most: The models used longest ago are removed beyond so many.
    """

    def __init__(self, folder: Path, *, most: int = 16) -> None:
        self._folder = folder
        self._most = most

    def get(self, model: bytes, *others: str) -> bytes | None:
        """What was stored for a model and the others that it depends on; None if nothing."""
        path = self._path(model, *others)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, compiled = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return compiled if hashlib.sha256(compiled).digest() == digest else None

    def put(self, compiled: bytes, model: bytes, *others: str) -> None:
        """Store what :meth:`get` will give for the same model and others."""
        with suppress(OutputError, OSError):
            write_file(self._path(model, *others), hashlib.sha256(compiled).digest() + compiled)
            by_use = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
            for path in by_use[: -self._most]:
                path.unlink(missing_ok=True)

    def _path(self, model: bytes, *others: str) -> Path:
        key = hashlib.sha256(model)
        for other in others:
            key.update(b"\0" + other.encode())
        return self._folder / f"{key.hexdigest()[:32]}{_SUFFIX}"


def user_cache() -> ModelCache | None:
    """The cache in the folder that the system has for such files; None if there is no home."""
    try:
        if sys.platform == "win32":
            folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            folder = Path.home() / "Library" / "Caches"
        else:  # https://specifications.freedesktop.org/basedir-spec/
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return ModelCache(folder / "maskserve")
