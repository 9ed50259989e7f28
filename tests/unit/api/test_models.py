"""``GET /v1/models``."""

from __future__ import annotations

from flask.testing import FlaskClient

from api_fakes import FakeRegistry, check_problem, make_manifest
from maskserve.core.errors import BundleCorruptError


def test_list_begins_with_the_default(client: FlaskClient) -> None:
    answer = client.get("/v1/models").get_json()
    assert answer["default"] == "balloon"
    assert [model["name"] for model in answer["models"]] == ["balloon", "second"]


def test_description_comes_from_the_manifest(client: FlaskClient) -> None:
    answer = client.get("/v1/models/second").get_json()
    manifest = make_manifest("second")
    assert answer["classes"] == list(manifest.classes)
    assert answer["input"]["short_side_px"] == manifest.preprocess.short_side_px
    assert answer["min_score"] == manifest.postprocess.min_score
    assert answer["trained_on"] == manifest.provenance.data
    for field in ("name", "version", "licence", "backbone", "created", "metrics"):
        assert answer[field] == getattr(manifest, field)


def test_unknown_model(client: FlaskClient) -> None:
    check_problem(client.get("/v1/models/third"), 404, "unknown_model", "third")


def test_before_anything_is_loaded(client: FlaskClient, registry: FakeRegistry) -> None:
    registry.ready = False
    for path in ("/v1/models", "/v1/models/balloon"):
        response = client.get(path)
        check_problem(response, 503, "server_not_ready", "loading")
        assert response.headers["Retry-After"]


def test_a_model_that_failed_spares_the_others(
    client: FlaskClient, registry: FakeRegistry, jpeg: bytes
) -> None:
    registry.failures["balloon"] = BundleCorruptError("/srv/models/x.zip: sha256 differs.")
    assert [m["name"] for m in client.get("/v1/models").get_json()["models"]] == ["second"]
    response = client.get("/v1/models/balloon")
    check_problem(response, 503, "bundle_corrupt")
    assert "/srv" not in response.text
    segmented = client.post("/v1/models/second/segment", data=jpeg, content_type="image/jpeg")
    assert segmented.status_code == 200
