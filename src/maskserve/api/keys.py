"""API keys: who may use the server, where the operator wants that asked."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator

from maskserve.api.settings import ServerSettings
from maskserve.core.errors import SettingsError

__all__ = ["ApiKeys"]

# What a Bearer token may consist of (RFC 6750); so short a key could be guessed.
_KEY = re.compile(r"[A-Za-z0-9._~+/=-]{16,256}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ApiKeys:
    """The keys of a server, of which only hashes are kept.

    Args:
        settings: Gives the keys themselves and a file with more of them.

    Raises:
        SettingsError: The file cannot be read or holds none, or a key is not fit to be one; says
            which line, never what it says.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._name_of = _read(settings)

    @property
    def required(self) -> bool:
        """Whether there are keys at all; without any, everybody may do everything."""
        return bool(self._name_of)

    def reload(self) -> None:
        """Read the file again; after an error the old keys go on to hold.

        Raises:
            SettingsError: As at the start.
        """
        self._name_of = _read(self._settings)

    def name_of(self, key: str) -> str | None:
        """The name of a key, None if it is not one of this server's.

        How long it takes tells nothing of the keys: all are compared, by their hashes.
        """
        given = _digest(key)
        found = None
        for digest, name in self._name_of.items():
            if hmac.compare_digest(digest, given):
                found = name
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _read(settings: ServerSettings) -> dict[bytes, str]:
    """The names of all keys, by hash."""
    named: dict[bytes, str] = {}
    for where, text in _entries(settings):
        name, colon, key = text.rpartition(":")
        if not _KEY.fullmatch(key):
            raise SettingsError(
                f"{where} is not an API key.",
                hint="A key has 16 to 256 letters, digits or . _ ~ + / = -; one is made by: "
                "openssl rand -hex 32",
            )
        if colon and not _NAME.fullmatch(name):
            raise SettingsError(
                f"{where} has a name that cannot be one.",
                hint="Write NAME:KEY with up to 64 letters, digits or . _ - before the colon.",
            )
        digest = _digest(key)
        if digest in named:
            raise SettingsError(f"{where} is a key that was given before.")
        # Not its place among the keys, which changes: jobs belong to the name.
        named[digest] = name or f"key-{digest.hex()[:8]}"
    return named


def _entries(settings: ServerSettings) -> Iterator[tuple[str, str]]:
    """Where each key stands, and ``KEY`` or ``NAME:KEY``."""
    for number, secret in enumerate(settings.api_keys or (), start=1):
        yield f"Entry {number} of api_keys", secret.get_secret_value()
    file = settings.api_keys_file
    if file is None:
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"The file of API keys {file} cannot be read: {reason}.") from None
    found = False
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            found = True
            yield f"Line {number} of {file}", text
    if not found:
        raise SettingsError(
            f"The file of API keys {file} holds none, so that everybody would be let in.",
            hint="Leave api_keys_file away if that is meant.",
        )
