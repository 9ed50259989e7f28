"""What holds for every use of Ray here."""

from __future__ import annotations

import os

__all__ = ["prepare_ray"]

_PROXY_MIDDLEWARES = "maskserve.cluster.proxy:make_middlewares"


def prepare_ray() -> None:
    """Set the environment that Ray is to be started in, or connected to from.

    Its usage statistics are switched off, and its HTTP proxies get our middleware. Nodes that
    ``ray start`` begins need both variables, too.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", _PROXY_MIDDLEWARES)
