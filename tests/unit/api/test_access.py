"""Who may use which route when there are keys."""

from __future__ import annotations

import logging
from base64 import b64encode
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from pydantic import SecretStr
from werkzeug.routing import Rule

from api_fakes import check_problem, make_client, make_registry
from maskserve.api import ServerSettings
from maskserve.api.server import _check_access
from maskserve.core.errors import EngineError

KEY = "a-key-that-nobody-guesses"
OTHER = "another-key-of-this-server"

OPEN = {
    "/",
    "/health",
    "/healthz",
    "/label-studio/<model>/health",
    "/openapi/",
    "/openapi/oauth2-redirect.html",
    "/openapi/openapi.json",
    "/openapi/swagger",
    "/openapi/swagger/<path:filename>",
    "/readyz",
    "/static/<path:filename>",
    "/v2/health/live",
    "/v2/health/ready",
}


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def guarded() -> FlaskClient:
    """Asks for one of two keys."""
    return make_client(make_registry(), api_keys=(SecretStr(f"alice:{KEY}"), SecretStr(OTHER)))


def address_of(rule: Rule) -> str:
    """One that the rule matches."""
    parts = [part if part[:1] != "<" else "x" for part in str(rule.rule).split("/")]
    return "/".join(parts)


def test_every_route_but_the_open_ones_asks_for_a_key(guarded: FlaskClient) -> None:
    asked: set[str] = set()
    let_in: set[str] = set()
    for rule in guarded.application.url_map.iter_rules():
        for method in (rule.methods or set()) - {"OPTIONS"}:
            response = guarded.open(address_of(rule), method=method)
            (asked if response.status_code == 401 else let_in).add(rule.rule)
            response.close()
    # Where Flask finds a more general rule for the address, both of them answer.
    assert let_in == OPEN
    assert asked >= {"/metrics", "/v1/models", "/v1/segment", "/v2/models/<name>/infer", "/predict"}
    assert not asked & let_in


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/static", "/openapi/../metrics", "//metrics"])
def test_an_address_that_is_none_tells_nothing(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path).status_code in (401, 308)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {OTHER}"},
        {"Authorization": basic(KEY)},
        {"Authorization": basic(KEY, user="")},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY, "Authorization": "Basic of-a-proxy"},
        {"X-API-Key": "wrong", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_a_key_is_taken_however_it_comes(guarded: FlaskClient, headers: dict[str, str]) -> None:
    assert guarded.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY} "[:-2]},
        {"Authorization": basic("wrong")},
        {"Authorization": basic("x", user=KEY)},
        {"Authorization": "Bearer größe"},
        {"X-API-Key": "größe", "Authorization": "Basic größe"},
        {"X-API-Key": f"alice:{KEY}"},
        {"X-API-Key": ""},
    ],
)
def test_a_wrong_key_is_refused(guarded: FlaskClient, headers: dict[str, str]) -> None:
    response = guarded.get("/v1/models", headers=headers)
    check_problem(response, 401, "unauthorized", "does not know this API key")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "invalid_token" in response.headers["WWW-Authenticate"]


@settings(max_examples=50)
@given(
    st.sampled_from(["Bearer", "Basic", "bearer", ""]), st.text(st.characters(max_codepoint=255))
)
def test_whatever_stands_there_is_refused_and_no_failure(
    guarded: FlaskClient, scheme: str, text: str
) -> None:
    value = f"{scheme} {text}".translate(dict.fromkeys(range(32)))
    for headers in ({"Authorization": value}, {"X-API-Key": value}):
        assert guarded.get("/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Basic %%%"}, {"Authorization": "Digest username=x"}],
)
def test_no_key_is_told_how_to_send_one(guarded: FlaskClient, headers: dict[str, str]) -> None:
    response = guarded.post("/v1/segment", data=b"x", headers=headers)
    check_problem(response, 401, "unauthorized", "Authorization: Bearer KEY", "X-API-Key", "Basic")
    # A challenge “Basic” would open the browser's own window over the page.
    assert response.headers["WWW-Authenticate"] == "Bearer realm=maskserve"


def test_a_host_that_is_not_trusted_is_told_so_and_not_asked_for_a_key() -> None:
    client = make_client(make_registry(), api_keys=(KEY,), trusted_hosts=("localhost",))
    for path in ("/readyz", "/v1/models", "/nothing"):
        check_problem(client.get(path, headers={"Host": "evil.example"}), 400, "bad_request")
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/models").status_code == 401


def test_a_key_that_nobody_asked_for_does_no_harm(client: FlaskClient) -> None:
    headers = {"Authorization": "Bearer whatever-it-may-be"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_the_body_of_a_stranger_is_not_read(guarded: FlaskClient) -> None:
    class Unreadable(BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError

    response = guarded.post("/v1/segment", input_stream=Unreadable(b"photo"))
    assert response.status_code == 401


def test_open_api_document_says_which_routes_need_a_key(guarded: FlaskClient) -> None:
    document = guarded.get("/openapi/openapi.json").get_json()
    validate(document)
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header", "basic"}
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == (path not in OPEN), path
            assert ("401" in operation["responses"]) == (path not in OPEN), path


def test_the_name_of_the_key_is_logged_and_the_key_is_not(
    jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise EngineError("it broke")

    client = make_client(make_registry(before=fail), api_keys=(SecretStr(f"alice:{KEY}"),))
    with caplog.at_level(logging.DEBUG):
        for headers in (
            {"Authorization": f"Bearer {KEY}"},
            {"X-API-Key": KEY},
            {"Authorization": basic(KEY)},
            {"X-API-Key": KEY + "x"},
        ):
            response = client.post("/v1/segment", data=jpeg, headers=headers)
            assert KEY not in response.text + str(response.headers)
    names = [vars(r)["fields"].get("key") for r in caplog.records if r.name == "maskserve.access"]
    assert names == ["alice", "alice", "alice", None]
    for record in caplog.records:
        assert KEY not in caplog.handler.format(record) + str(vars(record))


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("127.0.0.1", (), False),
        ("127.8.8.8", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("192.168.0.7", (), True),
        ("masks.example.org", (), True),
        ("0.0.0.0", (SecretStr(KEY),), False),
    ],
)
def test_an_open_door_is_warned_of(
    caplog: pytest.LogCaptureFixture, host: str, keys: tuple[SecretStr, ...], warned: bool
) -> None:
    _check_access(ServerSettings(host=host, api_keys=keys or None))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
    assert all(host in message for message in caplog.messages)
