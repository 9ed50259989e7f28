"""Liveness, readiness and metrics."""

from __future__ import annotations

from flask.testing import FlaskClient

from api_fakes import FakeRegistry, check_problem, make_client
from maskserve.api.services import Services
from maskserve.core.errors import BundleMissingError


def metric_lines(client: FlaskClient) -> list[str]:
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain")
    return response.text.splitlines()


def test_ready(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json() == {"status": "ready", "models": ["balloon", "second"]}


def test_alive_but_not_ready_while_loading(client: FlaskClient, registry: FakeRegistry) -> None:
    registry.ready = False
    assert client.get("/healthz").get_json() == {"status": "ok"}
    check_problem(client.get("/readyz"), 503, "server_not_ready", "loading")


def test_a_model_that_failed_is_named_without_its_path(
    client: FlaskClient, registry: FakeRegistry
) -> None:
    registry.failures["second"] = BundleMissingError("/srv/models/second.zip is not there.")
    response = client.get("/readyz")
    check_problem(response, 503, "server_not_ready", "second", "bundle_missing")
    assert "/srv" not in response.text


def test_not_ready_while_draining(client: FlaskClient) -> None:
    services: Services = client.application.extensions["maskserve"]
    services.draining.set()
    check_problem(client.get("/readyz"), 503, "server_not_ready", "stopping")
    assert client.get("/healthz").status_code == 200


def test_requests_are_counted_by_route_and_status(client: FlaskClient, jpeg: bytes) -> None:
    for name in ("balloon", "second", "third"):
        client.post(f"/v1/models/{name}/segment", data=jpeg, content_type="image/jpeg")
    for path in ("/a", "/b"):
        client.get(path)
    lines = metric_lines(client)
    route = 'route="/v1/models/<name>/segment"'
    assert f'maskserve_requests_total{{{route},status="200"}} 2.0' in lines
    assert f'maskserve_requests_total{{{route},status="404"}} 1.0' in lines
    assert 'maskserve_requests_total{route="unknown",status="404"} 2.0' in lines


def test_stages_queue_and_models_are_measured(client: FlaskClient, jpeg: bytes) -> None:
    client.post("/v1/segment", data=jpeg, content_type="image/jpeg")
    lines = metric_lines(client)
    for stage in ("decode", "queue", "infer", "paste", "draw", "total"):
        assert f'maskserve_stage_seconds_count{{model="balloon",stage="{stage}"}} 1.0' in lines
    assert "maskserve_queue_depth 0.0" in lines
    info = [line for line in lines if line.startswith("maskserve_model_info{")]
    assert len(info) == 2
    assert 'backbone="mobilenet_v2"' in info[0]
    assert 'version="1.0.0"' in info[0]


def test_each_app_has_metrics_of_its_own(client: FlaskClient, registry: FakeRegistry) -> None:
    client.get("/healthz")
    other = make_client(registry)
    assert not any('route="/healthz"' in line for line in metric_lines(other))
