"""Ray: the same interface and the same rows, on as many machines as there are.

``serve run maskserve.cluster:app`` finds the application here.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskserve.cluster.application import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    """Import Ray Serve for those only who ask for the application."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from maskserve.cluster.application import app  # noqa: PLC0415

    return app
