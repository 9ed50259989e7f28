"""Broken requests: sound ones to every dialect of the server, and mutations.

As with broken images, mutation ``index`` of a seed is always the same request.
"""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from image_mutations import mutate_bytes, sound_images

MODEL = "tiny"
"""The name that the server must know its model by."""
LABEL_CONFIG = """<View><Image name="photo" value="$image"/><BrushLabels name="mask" toName="photo">
<Label value="balloon"/></BrushLabels></View>"""


@dataclass(frozen=True, slots=True)
class Request:
    """A POST request.

    Attributes:
        values: What the body is the JSON of, as far as it is JSON.
        tail: What follows the JSON.
    """

    path: str
    headers: dict[str, str]
    values: Any = None
    tail: bytes = b""

    @property
    def body(self) -> bytes:
        return (b"" if self.values is None else _to_json(self.values)) + self.tail


@cache
def sound_requests() -> tuple[Request, ...]:
    """One of each kind."""
    png = sound_images()["png-rgb"]
    text = base64.b64encode(png).decode()
    json_type = {"Content-Type": "application/json"}
    shaped = {"name": "image", "datatype": "BYTES", "shape": [1]}
    outputs = [{"name": "scores"}, {"name": "masks", "parameters": {"binary_data": True}}]
    raw = struct.pack("<I", len(png)) + png
    binary = {
        "id": "1",
        "inputs": [shaped | {"parameters": {"binary_data_size": len(raw)}}],
        "outputs": outputs,
    }
    pixels = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 3], "data": [0] * 12}
    task = {"id": 1, "data": {"image": f"data:image/png;base64,{text}"}}
    local = {"id": 2, "data": {"image": "/data/local-files/?d=photo.png"}}
    label_studio = {"project": "1.2", "label_config": LABEL_CONFIG, "params": {"context": None}}
    infer = f"/v2/models/{MODEL}/infer"
    return (
        Request("/v1/segment", json_type, {"image": text}),
        Request(
            infer,
            json_type,
            {
                "inputs": [shaped | {"data": [text]}],
                "parameters": {"min_score": 0.1, "classes": "balloon", "max_instances": 3},
            },
        ),
        Request(infer, json_type, {"inputs": [pixels], "outputs": [{"name": "boxes_xyxy"}]}),
        Request(
            infer,
            {"Inference-Header-Content-Length": str(len(_to_json(binary)))},
            binary,
            raw,
        ),
        Request("/hf/image-segmentation", {}, tail=png),
        Request(
            f"/hf/models/{MODEL}",
            json_type,
            {"inputs": text, "parameters": {"threshold": 0.1, "subtask": "instance"}},
        ),
        Request("/predict", json_type, label_studio | {"tasks": [task]}),
        Request(f"/label-studio/{MODEL}/predict", json_type, label_studio | {"tasks": [local]}),
        Request("/setup", json_type, {"project": "1.2", "schema": LABEL_CONFIG}),
        Request("/webhook", json_type, {"action": "PROJECT_UPDATED", "project": {"id": 1}}),
        Request("/v1/jobs", {"Content-Type": "application/zip"}, tail=_zip_of_photos()),
    )


def request_mutation(seed: int, index: int) -> Request:
    """A broken request."""
    rng = random.Random(f"{seed}/{index}")
    request = rng.choice(sound_requests())
    for _ in range(rng.choice((1, 1, 2, 3))):
        request = rng.choice((_change_value, _change_value, _change_bytes, _change_header))(
            request, rng
        )
    return request


def _change_value(request: Request, rng: random.Random) -> Request:
    """Replace, remove or repeat something in the JSON."""
    if request.values is None:
        return _change_bytes(request, rng)
    values = json.loads(json.dumps(request.values))
    places = list(_places(values))
    if not places:
        return replace(request, values=_odd_value(rng))
    container, key = rng.choice(places)
    match rng.choice(("replace", "replace", "remove", "rename", "nest")):
        case "replace":
            container[key] = _odd_value(rng)
        case "remove":
            del container[key]
        case "nest":
            container[key] = [container[key]]
        case "rename" if isinstance(container, dict):
            container[str(_odd_value(rng))[:50]] = container.pop(key)
    return replace(request, values=values)


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    if isinstance(values, dict | list):
        for key in values if isinstance(values, dict) else range(len(values)):
            yield values, key
            yield from _places(values[key])


def _odd_value(rng: random.Random) -> Any:
    nested: Any = []
    for _ in range(rng.choice((3, 70, 400))):
        nested = [nested]
    return rng.choice(
        (
            None,
            True,
            -1,
            0,
            1,
            2**31,
            2**63,
            10**400,
            0.5,
            1e308,
            float("nan"),
            float("inf"),
            "",
            "image",
            "\0",
            "../../etc/hostname",
            "/data/local-files/?d=../clock",
            "http://127.0.0.1:1/photo.png",
            "data:image/png;base64,AAAA",
            "data:,",
            "é\u2028\ud800",
            "A" * 10_000,
            "9" * 5_000,
            LABEL_CONFIG.replace("Image", "image"),
            "<View>" * 500,
            '<!DOCTYPE a [<!ENTITY b "bb">]><View>&b;</View>',
            [],
            {},
            [[]],
            [1, "a", None],
            {"a": {"b": []}},
            list(range(1000)),
            nested,
        )
    )


def _change_bytes(request: Request, rng: random.Random) -> Request:
    """Damage the body, JSON or not."""
    if request.values is None or (request.tail and rng.random() < 0.5):
        return replace(request, tail=mutate_bytes(request.tail or b"\0", rng))
    return replace(request, values=None, tail=mutate_bytes(request.body, rng))


def _change_header(request: Request, rng: random.Random) -> Request:
    names = ("Content-Type", "Accept", "Inference-Header-Content-Length", "X-Request-Id")
    values = (
        "",
        "0",
        "-1",
        "1",
        "9" * 5_000,
        "²",
        "application/json",
        "application/json; charset=utf-7",
        "application/octet-stream",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a",
        "application/x-www-form-urlencoded",
        "application/zip",
        "image/png;q=x, */*;q=-1",
        "text/html",
    )
    return replace(request, headers=request.headers | {rng.choice(names): rng.choice(values)})


def _to_json(values: Any) -> bytes:
    return json.dumps(values).encode()


def _zip_of_photos() -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for name in ("png-rgb", "jpeg-baseline"):
            archive.writestr(f"folder/{name}", sound_images()[name])
    return buffer.getvalue()
