"""A client of the HTTP API, which answers as a local model does.

with Client("http://127.0.0.1:8080") as client:
    instances = client.segment("photo.jpg", min_score=0.5)
    instances.coverage().masked_percent
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import numpy as np
import urllib3
from urllib3.exceptions import HTTPError

from maskserve.core.errors import (
    ImageMissingError,
    MaskserveError,
    ParameterError,
    ServerUnreachableError,
)
from maskserve.core.masks import crop_from_rle
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import encode_image

__all__ = ["Client", "RemoteModel"]

Photo = str | Path | bytes | Image
"""A file, the content of one, or pixels: uint8, shape (H, W, 3), RGB."""

Answer = TypeVar("Answer")

_FULL = 503
_LONGEST_WAIT_S = 30
"""The server may ask for no more between two tries."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model that the server has ready.

    Attributes:
        classes: Indexed by ``Instances.class_indices``.
        min_score: Used where :meth:`Client.segment` is given none.
        is_default: Whether it is used where no model is named.
    """

    name: str
    version: str
    description: str
    licence: str
    backbone: str
    classes: tuple[str, ...]
    min_score: float
    max_instances: int
    is_default: bool


class Client:
    """Talks to one server; threads may share a client.

    Where the server is full or still loading, or nobody listens yet, a call waits as the server
    asks and tries again.

    Args:
        url: Of the server, such as ``https://example.org/maskserve``.
        api_key: Where the server asks for one.
        timeout_s: For connecting, and for each wait until something of the answer comes.
        retries: How often a call is tried again at most.

    Raises:
        ParameterError: ``url`` is not one.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ParameterError(
                f"“{url}” is not the address of a server.", hint="http://HOST:PORT"
            )
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=urllib3.Timeout(timeout_s),
            retries=urllib3.Retry(
                total=retries,
                read=False,  # the photo may be in the network already: twice would be worse
                redirect=False,
                allowed_methods=None,  # a photo can be sent twice without harm
                status_forcelist=(_FULL,),
                raise_on_status=False,
                backoff_factor=0.5,
                backoff_max=_LONGEST_WAIT_S,
                retry_after_max=_LONGEST_WAIT_S,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens one anew."""
        self._pool.clear()

    def segment(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        min_score: float | None = None,
        classes: Sequence[str] | None = None,
        max_instances: int | None = None,
    ) -> Instances:
        """Find the instances in a photo.

        Masks are those of a local model to the pixel; of boxes come two decimals, of scores four.

        Args:
            photo: A file, its content, or pixels, which are sent as a PNG.
            model: Name of a model; the server's default one if there is none.
            min_score: Leave out what scores lower; by default the model's own threshold.
            classes: Leave out other classes.
            max_instances: Return at most so many, the best.

        Raises:
            ImageError: The photo cannot be used.
            UnknownModelError: The server has no such model.
            UnknownClassError: The model has no such class.
            ServerFullError: Even after the last try.
            ServerUnreachableError: Nobody answers, or it is not maskserve that does.
            MaskserveError: Any other failure of the server.
        """
        body = self._post_photo(
            photo,
            model,
            {"masks": "rle", **_query(min_score, classes, max_instances)},
            accept="application/json",
        )
        return self._understand(_to_instances, body)

    def draw(
        self,
        photo: Photo,
        *,
        style: str = "overlay",
        media_type: str = "image/jpeg",
        model: str | None = None,
        min_score: float | None = None,
        classes: Sequence[str] | None = None,
        max_instances: int | None = None,
    ) -> bytes:
        """Draw what was found in a photo.

        Args:
            photo: As for :meth:`segment`, as are the other arguments that are not named here.
            style: ``overlay``, ``outline``, ``splash`` or ``mask``.
            media_type: ``image/jpeg`` or ``image/png``.
            model: As for :meth:`segment`.
            min_score: As for :meth:`segment`.
            classes: As for :meth:`segment`.
            max_instances: As for :meth:`segment`.

        Returns:
            The content of the picture's file, of the upright photo's size.

        Raises:
            MaskserveError: As :meth:`segment`.
        """
        return self._post_photo(
            photo,
            model,
            {"style": style, **_query(min_score, classes, max_instances)},
            accept=media_type,
        )

    def models(self) -> list[RemoteModel]:
        """The models that are ready.

        Raises:
            ServerUnreachableError: Nobody answers, or it is not maskserve that does.
            MaskserveError: Any other failure of the server.
        """
        return self._understand(_to_models, self._request("GET", "/v1/models"))

    def ready(self) -> bool:
        """Whether the server has all its models ready now; False also where nobody answers."""
        try:
            return self._pool.request("GET", f"{self._url}/readyz", retries=False).status == 200
        except HTTPError:
            return False

    def _post_photo(
        self, photo: Photo, model: str | None, query: Mapping[str, str], *, accept: str
    ) -> bytes:
        path = "/v1/segment" if model is None else f"/v1/models/{quote(model, safe='')}/segment"
        return self._request(
            "POST",
            path,
            query=query,
            body=_encode(photo),
            headers={"Content-Type": "application/octet-stream", "Accept": accept},
        )

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        url = self._url + path + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers={**self._pool.headers, **(headers or {})},
            )
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ServerUnreachableError(
                f"{self._url} does not answer: {reason}.", hint="Does maskserve run there?"
            ) from None
        if response.status == 200:
            return response.data
        raise self._understand(_to_error, response.data)

    def _understand(self, read: Callable[[Any], Answer], body: bytes) -> Answer:
        try:
            return read(json.loads(body))
        except (ValueError, KeyError, TypeError, IndexError):
            raise ServerUnreachableError(
                f"{self._url} does not answer as maskserve does.", hint="Check the address."
            ) from None


def _encode(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, np.ndarray):
        return encode_image(photo, "image/png")
    try:
        return Path(photo).read_bytes()
    except OSError as error:
        raise ImageMissingError(f"{photo} cannot be read: {error.strerror}.") from None


def _query(
    min_score: float | None, classes: Sequence[str] | None, max_instances: int | None
) -> dict[str, str]:
    values = {
        "min_score": min_score,
        "classes": None if classes is None else ",".join(classes),
        "max_instances": max_instances,
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def _to_instances(answer: Mapping[str, Any]) -> Instances:
    found = answer["instances"]
    boxes = np.array([instance["bbox_xywh"] for instance in found], dtype=np.float32)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Instances(
        image_size=(answer["image"]["height"], answer["image"]["width"]),
        class_names=tuple(answer["coverage"]["per_class"]),
        boxes_xyxy=boxes,
        scores=np.array([instance["score"] for instance in found], dtype=np.float32),
        class_indices=np.array([instance["class_index"] for instance in found], dtype=np.int64),
        crops=tuple(crop_from_rle(instance["mask"]) for instance in found),
    )


def _to_models(answer: Mapping[str, Any]) -> list[RemoteModel]:
    return [
        RemoteModel(
            name=model["name"],
            version=model["version"],
            description=model["description"],
            licence=model["licence"],
            backbone=model["backbone"],
            classes=tuple(model["classes"]),
            min_score=model["min_score"],
            max_instances=model["max_instances"],
            is_default=model["name"] == answer["default"],
        )
        for model in answer["models"]
    ]


def _to_error(problem: Mapping[str, Any]) -> MaskserveError:
    """The error of the code that a problem has; the plain one for codes of HTTP itself."""
    kinds = {kind.code: kind for kind in _kinds(MaskserveError)}
    return kinds.get(problem["code"], MaskserveError)(problem["detail"])


def _kinds(kind: type[MaskserveError]) -> list[type[MaskserveError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]
