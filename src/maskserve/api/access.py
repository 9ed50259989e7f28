"""Who may use which route, where the operator has set API keys."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import SecurityError, Unauthorized
from werkzeug.routing import RequestRedirect

from maskserve.api.observe import note
from maskserve.api.problems import describe_problems
from maskserve.api.services import current_services

__all__ = ["check_key", "describe_keys"]

_OPEN_RULES = frozenset(
    {
        "/",  # the page, which asks for a key itself
        "/static/<path:filename>",
        "/openapi/",
        "/openapi/openapi.json",
        "/openapi/swagger",
        "/openapi/swagger/<path:filename>",
        "/openapi/oauth2-redirect.html",
        "/healthz",
        "/readyz",
        "/health",  # Label Studio's
        "/label-studio/<model>/health",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
"""Routes that need no key: of a model they tell its name at most. Every other one needs one."""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The key is the password; the user name does not matter.",
    },
}


def check_key() -> None:
    """Refuse the current request unless it has a key or needs none.

    The name of the key goes into the request's line in the log.

    Raises:
        Unauthorized: Without a key, or with one that this server does not know.
    """
    keys = current_services().keys
    if not keys.required or _is_open():
        return
    presented = list(_presented())
    for key in presented:
        name = keys.name_of(key)
        if name is not None:
            note(key=name)
            return
    # Not “Basic”, for which a browser would ask with a window of its own.
    challenge: dict[str, str | None] = {"realm": "maskserve"}
    if presented:
        challenge["error"] = "invalid_token"
    raise Unauthorized(
        "The server does not know this API key."
        if presented
        else "This server asks for an API key. Send “Authorization: Bearer KEY”, “X-API-Key: KEY”, "
        "or Basic with the key as the password.",
        www_authenticate=WWWAuthenticate("bearer", challenge),
    )


def describe_keys(document: dict[str, Any]) -> None:
    """Say in an OpenAPI document which operations need a key."""
    document["components"]["securitySchemes"] = _SCHEMES
    refusal = {
        str(int(status)): body
        for status, body in describe_problems(HTTPStatus.UNAUTHORIZED).items()
    }
    for path, item in document["paths"].items():
        if path not in _OPEN_RULES:
            for operation in item.values():
                operation["security"] = [{name: []} for name in _SCHEMES]
                operation["responses"].update(refusal)


def _is_open() -> bool:
    if request.method == "OPTIONS":  # a browser asks so whether it may send a key
        return True
    if request.url_rule is None:
        # No such address. A redirect leads to one that is checked; for a host that is not trusted,
        # no address is looked up, and it is refused as what it is.
        return isinstance(request.routing_exception, RequestRedirect | SecurityError)
    return request.url_rule.rule in _OPEN_RULES


def _presented() -> Iterator[str]:
    """Whatever the request offers as a key."""
    if "X-API-Key" in request.headers:
        yield request.headers["X-API-Key"]
    try:
        given = request.authorization
    except ValueError:  # werkzeug's, for Basic with letters that base64 does not have
        return
    if given is not None and given.type == "bearer" and given.token:
        yield given.token
    if given is not None and given.type == "basic" and given.password:
        yield given.password
