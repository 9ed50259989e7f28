"""The page at ``/``, which uses the public API only."""

from __future__ import annotations

from flask import Blueprint, render_template

from maskserve.runtime.render import STYLES

__all__ = ["blueprint"]

blueprint = Blueprint("page", __name__)


@blueprint.get("/")
def page() -> str:
    return render_template("index.html", styles=STYLES)
