"""The API in front of a real registry and engine, with a bundle whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from api_fakes import check_problem
from maskserve.api import ServerSettings, create_app
from maskserve.api.services import Registry
from maskserve.runtime.image_io import encode_image
from maskserve.runtime.registry import ModelRegistry


def test_from_not_ready_to_counted_pixels(
    tiny_bundle: Path, make_bundle: Callable[[str], Path]
) -> None:
    registry: Registry = ModelRegistry([tiny_bundle, make_bundle("other")])
    client = create_app(ServerSettings(), registry).test_client()
    photo = encode_image(np.zeros((60, 80, 3), np.uint8), "image/png")

    for response in (
        client.get("/readyz"),
        client.get("/v1/models"),
        client.post("/v1/segment", data=photo, content_type="image/png"),
    ):
        check_problem(response, 503, "server_not_ready")

    registry.load()
    assert client.get("/readyz").get_json()["models"] == ["tiny", "other"]
    check_problem(client.get("/v1/models/othre"), 404, "unknown_model", "“other”")
    response = client.post("/v1/models/other/segment", data=photo, content_type="image/png")
    coverage = response.get_json()["coverage"]
    assert coverage["masked_px"] == 768 + 1200 - 48  # the two rectangles overlap by 48 px
    assert coverage["masked_percent"] == 40
    assert coverage["per_class"]["kite"]["masked_px"] == 1200


def test_damaged_bundle_is_reported_and_spares_the_other(
    tiny_bundle: Path, make_bundle: Callable[[str], Path]
) -> None:
    damaged = make_bundle("damaged")
    (damaged / "model.onnx").write_bytes(b"not a graph")
    registry = ModelRegistry([tiny_bundle, damaged])
    registry.load()
    client = create_app(ServerSettings(), registry).test_client()
    response = client.get("/readyz")
    check_problem(response, 503, "server_not_ready", "damaged", "bundle_corrupt")
    assert str(damaged) not in response.text
    check_problem(client.get("/v1/models/damaged"), 503, "bundle_corrupt")
    assert client.get("/v1/models/tiny").status_code == 200
