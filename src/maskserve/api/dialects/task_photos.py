"""Where the photo of a Label Studio task lies, and how to get it without being led astray.

A task only names its photo. Its text comes from whoever can write tasks, so it never decides
which machine is asked: files come from folders, or from the one Label Studio that the settings
name, and no address outside of these is opened.
https://labelstud.io/guide/ml#Allow-the-ML-backend-to-access-Label-Studio-data
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit

from maskserve.api.dialects.bodies import decode_base64
from maskserve.api.settings import ServerSettings
from maskserve.core.errors import (
    ImageMissingError,
    ImageTooLargeError,
    ImageTypeError,
    ParameterError,
    ServerUnreachableError,
)
from maskserve.runtime.image_io import IMAGE_SUFFIXES

__all__ = ["TaskPhotos"]

_UPLOADS = "/data/upload/"
_LOCAL_FILES = "/data/local-files/"
_CONNECT_S = 5.0
_FETCH_S = 30.0
"""How long a whole download may take."""
_TOKEN_S = 60.0
"""How long an access token is used again; Label Studio's live five minutes."""

_FOUND_IN = (
    "Photos are read from uploads (/data/upload/…), local files (/data/local-files/?d=…) and "
    "data: URIs."
)


class TaskPhotos:
    """Reads the photos that tasks name.

    Args:
        settings: Their fields that begin with ``label_studio`` say where photos may come from.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._max_bytes = settings.max_bytes
        self._uploads = settings.label_studio_data_dir and (
            settings.label_studio_data_dir / "media" / "upload"
        )
        self._local_files = settings.label_studio_local_files
        url, key = settings.label_studio_url, settings.label_studio_api_key
        self._label_studio = (
            _LabelStudio(url, key.get_secret_value(), max_bytes=settings.max_bytes)
            if url and key
            else None
        )

    def read(self, reference: object) -> bytes:
        """The encoded photo.

        Args:
            reference: What the task has for its picture.

        Raises:
            ImageMissingError: There is no such file, or nothing says where such files lie.
            ImageTypeError: By its name it is not a photo.
            ImageTooLargeError: It has more bytes than the server accepts.
            ParameterError: It is no reference, or to a place that is not looked into.
            ServerUnreachableError: Label Studio does not give it.
        """
        if not isinstance(reference, str) or not reference:
            raise ImageMissingError("The task has no photo.", hint=_FOUND_IN)
        if reference.startswith("data:"):
            return _from_data_uri(reference)
        try:
            address = urlsplit(reference)
        except ValueError:
            raise ParameterError("The task's photo is not an address.", hint=_FOUND_IN) from None
        path = unquote(address.path)
        if path.startswith(("upload/", "/upload/")):
            path = "/data/" + path.lstrip("/")
        # Whatever host is named: Label Studio may have another name for itself than the settings.
        if address.scheme in ("", "http", "https"):
            if path.startswith(_UPLOADS):
                return self._read(self._uploads, path.removeprefix(_UPLOADS), at=_UPLOADS)
            if path in (_LOCAL_FILES, _LOCAL_FILES.rstrip("/")):
                name = parse_qs(address.query).get("d", [""])[-1]
                return self._read(self._local_files, name, at=f"{_LOCAL_FILES}?d=")
        raise ParameterError(
            f"Photos are not fetched from “{address.scheme}://”."
            if address.scheme
            else "The task's photo is neither an upload nor a local file.",
            hint=_FOUND_IN,
        )

    def _read(self, folder: Path | None, name: str, *, at: str) -> bytes:
        name = name.lstrip("/")
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or not name.isprintable():
            raise ParameterError("The task's photo has a path that leads out of its folder.")
        if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageTypeError("By its name, the task's photo is not a JPEG, PNG or WebP.")
        if folder is not None:
            return _read_file(folder, name, max_bytes=self._max_bytes)
        if self._label_studio is not None:
            return self._label_studio.fetch(at + quote(name))
        raise ImageMissingError(
            f"Nothing says where files of {at} lie.",
            hint="Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, or a folder.",
        )


def _read_file(folder: Path, name: str, *, max_bytes: int) -> bytes:
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):  # by a link
        raise ParameterError("The task's photo has a path that leads out of its folder.")
    data = None
    with suppress(OSError):  # too long a name, or not to be read
        if path.is_file():  # and not, say, a pipe, whose end nobody knows
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
    if data is None:
        raise ImageMissingError("The task's photo is not there.")
    _check_size(data, max_bytes)
    return data


def _from_data_uri(reference: str) -> bytes:
    head, _, body = reference.partition(",")
    if not head.endswith(";base64"):
        raise ParameterError("A data: URI must be in base64.")
    return decode_base64(body, what="The data: URI")


def _check_size(data: bytes | bytearray, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"The task's photo has more than {max_bytes / 2**20:.1f} MiB.")


class _LabelStudio:
    """The one Label Studio that files are fetched from; redirects are not followed."""

    def __init__(self, url: str, api_key: str, *, max_bytes: int) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._max_bytes = max_bytes
        # Here, because it opens a socket when it is imported.
        import urllib3  # noqa: PLC0415

        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=_CONNECT_S, read=_FETCH_S)
        )
        self._lock = threading.Lock()
        self._access_token = ""
        self._token_until = 0.0

    def fetch(self, path: str) -> bytes:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            return self._get(path)
        except HTTPError as error:
            raise ServerUnreachableError(
                f"Label Studio does not give the task's photo: {type(error).__name__}.",
                hint="Check LABEL_STUDIO_URL.",
            ) from None

    def _get(self, path: str) -> bytes:
        deadline = time.monotonic() + _FETCH_S
        response = self._pool.request(
            "GET",
            self._url + path,
            headers={"Authorization": self._authorization(), "Accept-Encoding": "identity"},
            preload_content=False,
            redirect=False,
        )
        try:
            if response.status == 404:
                raise ImageMissingError("Label Studio does not have the task's photo.")
            if response.status != 200:
                raise ServerUnreachableError(
                    f"Label Studio does not give the task's photo: status {response.status}.",
                    hint="Check LABEL_STUDIO_API_KEY, and what its user may see.",
                )
            data = bytearray()
            # What has arrived, not so many bytes: else a slow sender would set the pace.
            while piece := response.read1(1 << 16, decode_content=False):
                data += piece
                _check_size(data, self._max_bytes)
                if time.monotonic() > deadline:
                    raise ServerUnreachableError(
                        f"The task's photo did not arrive within {_FETCH_S:g} s."
                    )
            return bytes(data)
        finally:
            response.close()

    def _authorization(self) -> str:
        """Personal access tokens (JWT) are exchanged for an access token, legacy ones are not."""
        if self._api_key.count(".") != 2:
            return f"Token {self._api_key}"
        with self._lock:
            if time.monotonic() >= self._token_until:
                response = self._pool.request(
                    "POST",
                    f"{self._url}/api/token/refresh/",
                    json={"refresh": self._api_key},
                    redirect=False,
                )
                if response.status != 200:
                    raise ServerUnreachableError(
                        f"Label Studio refuses its API key: status {response.status}.",
                        hint="Check LABEL_STUDIO_API_KEY.",
                    )
                self._access_token = response.json()["access"]
                self._token_until = time.monotonic() + _TOKEN_S
            return f"Bearer {self._access_token}"
