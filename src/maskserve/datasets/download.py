"""Downloading a file, with what is there of it already."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from maskserve.core.errors import DownloadError

__all__ = ["OnProgress", "download"]

OnProgress = Callable[[int, int | None], None]
"""Is told how many bytes are there, and of how many, if the server says so."""

_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 18


def download(
    url: str, part: Path, *, max_bytes: int, on_progress: OnProgress | None = None
) -> None:
    """Complete the file ``part``, of which the beginning may be there.

    Nothing is known of its content afterwards: compare its checksum before it is used.

    Args:
        url: Where the file is.
        part: Where it is put; stays where it is when the download fails, to go on from.
        max_bytes: More than this is not downloaded.
        on_progress: Called after each piece.

    Raises:
        DownloadError: There is no connection, it broke, the server has no such file, or the file
            is too large.
        OSError: ``part`` cannot be written.
    """
    done = part.stat().st_size if part.exists() else 0
    response = _request(url, start=done)
    if response is None:
        return
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server sends all of it
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        _require_size(url, total or 0, max_bytes)
        with part.open("ab" if done else "wb") as file:
            while chunk := _read(response, url):
                done += len(chunk)
                _require_size(url, done, max_bytes)
                file.write(chunk)
                if on_progress is not None:
                    on_progress(done, total)
    if total is not None and done < total:
        raise _broken(url)


def _request(url: str, *, start: int) -> HTTPResponse | None:
    """The answer to a request for all bytes from ``start`` on; None if there are no more.

    Raises:
        DownloadError: There is no answer, or none that helps.
    """
    headers = {"User-Agent": "maskserve", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            is_complete = error.headers.get("Content-Range", "").endswith(f"/{start}")
            return None if is_complete else _request(url, start=0)
        raise DownloadError(
            f"{url} answers “{error.code} {error.reason}”.",
            hint="Try again later; if it stays like that, the file was moved.",
        ) from None
    except (HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise DownloadError(
            f"{url} cannot be reached: {reason}.",
            hint="Check the connection to the internet; behind a proxy, set HTTPS_PROXY.",
        ) from None
    is_rest = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if start and response.status == HTTPStatus.PARTIAL_CONTENT and not is_rest:
        response.close()
        return _request(url, start=0)
    return response


def _read(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (HTTPException, OSError):
        raise _broken(url) from None


def _broken(url: str) -> DownloadError:
    return DownloadError(
        f"The connection broke while {url} was downloaded.",
        hint="Run it again: it goes on where it stopped.",
    )


def _require_size(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DownloadError(
            f"{url} is larger than {max_bytes / 1e6:.0f} MB, which the published file is not.",
            hint="Something between here and there may have replaced it.",
        )
