"""What browsers are told and refused."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api_fakes import FakeRegistry, check_problem, make_client, make_registry
from maskserve.api.browsers import SECURITY_HEADERS
from maskserve.api.settings import resolve_settings
from maskserve.core.errors import SettingsError

PAGE = "https://app.example.org"
KEY = "a-key-that-nobody-guesses"


@pytest.fixture
def shared(registry: FakeRegistry) -> FlaskClient:
    return make_client(
        registry, cors_origins=(PAGE, "http://[::1]:3000"), api_keys=(SecretStr(KEY),)
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "TRACE"])
@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/openapi", "/metrics", "/v1/segment", "/v2/x", "/nothing"]
)
def test_security_headers_go_with_every_answer(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(path, method=method)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers.getlist(name) == [value]
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])
    assert not [name for name in dict(response.headers) if name.startswith("Access-Control")]
    response.close()


def test_security_headers_go_with_failures_of_ours(jpeg: bytes) -> None:
    def fail() -> None:
        raise RuntimeError

    response = make_client(make_registry(before=fail)).post("/v1/segment", data=jpeg)
    assert response.status_code == 500
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_nothing_is_kept_but_static_files(client: FlaskClient) -> None:
    assert client.get("/v1/models").headers["Cache-Control"] == "no-store"
    with client.get("/static/app.js") as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["ETag"]


def preflight(client: FlaskClient, origin: str, *, path: str = "/v1/segment") -> dict[str, str]:
    response = client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        },
    )
    assert response.status_code == 200
    return {n: v for n, v in response.headers.items() if n.startswith("Access-Control")}


def test_a_named_origin_may_ask_without_a_key_whether_it_may_send_one(shared: FlaskClient) -> None:
    allowed = preflight(shared, PAGE)
    assert allowed["Access-Control-Allow-Origin"] == PAGE
    assert "authorization" in allowed["Access-Control-Allow-Headers"].lower()
    assert "POST" in allowed["Access-Control-Allow-Methods"]
    assert allowed["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Credentials" not in allowed


def test_a_named_origin_gets_the_answer(shared: FlaskClient, jpeg: bytes) -> None:
    headers = {
        "Origin": PAGE,
        "Sec-Fetch-Site": "cross-site",
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "image/jpeg",
    }
    response = shared.post("/v1/segment", data=jpeg, headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-Masked-Percent" in response.headers["Access-Control-Expose-Headers"]
    assert "Origin" in response.headers["Vary"]
    refused = shared.post("/v1/segment", data=jpeg, headers={"Origin": PAGE})
    check_problem(refused, 401, "unauthorized")
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE  # or the page could not say so


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.org.evil.net",
        "https://app.example.org:8443",
        "http://app.example.org",
        "https://appXexample.org",
        "https://x.app.example.org",
        "http://:3000",
        "http://1:3000",
        "null",
        "*",
        "",
        f"{PAGE}\nX: y",
    ],
)
def test_no_other_origin_is_allowed(shared: FlaskClient, origin: str) -> None:
    if "\n" in origin:
        origin = origin.replace("\n", "%0a")
    assert preflight(shared, origin) == {}
    headers = {"Origin": origin, "X-API-Key": KEY}
    assert "Access-Control-Allow-Origin" not in shared.get("/v1/models", headers=headers).headers


def test_an_address_in_brackets_is_an_origin_too(shared: FlaskClient) -> None:
    origin = "http://[::1]:3000"
    assert preflight(shared, origin)["Access-Control-Allow-Origin"] == origin


def test_without_origins_there_is_no_cors_at_all(client: FlaskClient) -> None:
    assert preflight(client, PAGE) == {}


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "example.org", f"{PAGE}/"])
def test_origins_are_named_exactly_or_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=rf"“cors_origins” .*: “{re.escape(origin)}” is not an"):
        resolve_settings(environ={"MASKSERVE_CORS_ORIGINS": f"{PAGE},{origin}"})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_form_is_refused(client: FlaskClient, jpeg: bytes, site: str) -> None:
    """The local server of somebody who reads a hostile page in the same browser."""
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": site}
    response = client.post("/v1/segment", data=jpeg, headers=headers)
    check_problem(response, 403, "forbidden", "https://evil.example", "cors_origins")


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_the_own_page_and_programs_are_not(
    client: FlaskClient, jpeg: bytes, site: str | None
) -> None:
    headers = {"Content-Type": "image/jpeg"} | ({"Sec-Fetch-Site": site} if site else {})
    assert client.post("/v1/segment", data=jpeg, headers=headers).status_code == 200


def test_a_link_from_another_site_works(client: FlaskClient) -> None:
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_only_trusted_hosts_where_they_are_named(registry: FakeRegistry) -> None:
    """A name that leads to 127.0.0.1 makes a hostile page one of the same origin."""
    client = make_client(registry, trusted_hosts=("127.0.0.1", ".example.org"))
    assert client.get("/v1/models", headers={"Host": "127.0.0.1:8080"}).status_code == 200
    assert client.get("/v1/models", headers={"Host": "a.example.org"}).status_code == 200
    response = client.get("/v1/models", headers={"Host": "rebound.evil.example:8080"})
    check_problem(response, 400, "bad_request")


@pytest.mark.parametrize(
    ("hops", "remote", "url"),
    [
        (0, "127.0.0.1", "http://localhost/openapi/"),
        (1, "203.0.113.9", "https://masks.example.org/openapi/"),
        (2, "198.51.100.7", "https://masks.example.org/openapi/"),
    ],
)
def test_as_many_proxies_are_believed_as_there_are(
    registry: FakeRegistry,
    caplog: pytest.LogCaptureFixture,
    hops: int,
    remote: str,
    url: str,
) -> None:
    client = make_client(registry, trusted_proxies=hops)
    headers = {
        "X-Forwarded-For": "192.0.2.1, 198.51.100.7, 203.0.113.9",
        "X-Forwarded-Proto": "https, https",
        "X-Forwarded-Host": "masks.example.org, masks.example.org",
    }
    with caplog.at_level("INFO", logger="maskserve.access"):
        response = client.get("/openapi", headers=headers)
    assert vars(caplog.records[-1])["fields"]["remote"] == remote
    assert response.headers["Location"] in (url, "/openapi/")
    if hops:
        assert url.split("/")[2] in response.text or response.headers["Location"] == url
