"""A server around a network that always finds the same three ellipses, for tests of the API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from maskserve.api import ServerSettings, create_app
from maskserve.core.errors import MaskserveError, ServerNotReadyError, UnknownModelError
from maskserve.core.manifest import Manifest, Provenance
from maskserve.core.predictor import Image
from maskserve.runtime.engine import RawDetections
from maskserve.runtime.predictor import EnginePredictor

# Left, top, right and bottom as shares of the photo, score, class_index. The first two overlap.
Ellipse = tuple[tuple[float, float, float, float], float, int]

ELLIPSES: tuple[Ellipse, ...] = (
    ((0.1, 0.1, 0.5, 0.6), 0.95, 0),
    ((0.3, 0.2, 0.7, 0.8), 0.80, 1),
    ((0.75, 0.6, 0.95, 0.9), 0.30, 0),
)


class EllipseEngine:
    """An ``Engine`` whose detections do not depend on the photo."""

    def __init__(self, *, before: Callable[[], None] = lambda: None) -> None:
        self._before = before

    def infer(self, image: Image, *, min_score: float) -> RawDetections:
        self._before()
        height, width = image.shape[:2]
        found = [ellipse for ellipse in ELLIPSES if ellipse[1] >= min_score]
        y, x = (np.mgrid[0:28, 0:28] + 0.5) / 14 - 1
        disc = (x**2 + y**2 <= 1).astype(np.float32)
        boxes = np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4)
        return RawDetections(
            boxes * np.array([width, height, width, height], dtype=np.float32),
            np.array([score for _, score, _ in found], dtype=np.float32),
            np.array([class_index for _, _, class_index in found], dtype=np.int64),
            np.repeat(disc[None], len(found), axis=0),
        )


def make_manifest(name: str = "balloon") -> Manifest:
    return Manifest(
        name=name,
        version="1.0.0",
        licence="Apache-2.0",
        created="2026-01-01T00:00:00Z",
        backbone="mobilenet_v2",
        classes=("balloon", "kite"),
        category_ids=(1, 2),
        provenance=Provenance(data="drawn ellipses", initial_weights="none"),
        files={},
    )


@dataclass
class FakeRegistry:
    """As ``runtime.ModelRegistry``, with models that are ready unless told otherwise."""

    predictors: dict[str, EnginePredictor]
    ready: bool = True
    failures: dict[str, MaskserveError] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.predictors)

    def get(self, name: str) -> EnginePredictor:
        if name not in self.predictors:
            raise UnknownModelError(f"There is no model “{name}”.")
        if name in self.failures:
            raise self.failures[name]
        if not self.ready:
            raise ServerNotReadyError("The model is still loading.")
        return self.predictors[name]

    def load(self) -> None:
        self.ready = True

    def reload(self) -> dict[str, MaskserveError | None]:
        return {}


def make_registry(*names: str, before: Callable[[], None] = lambda: None) -> FakeRegistry:
    return FakeRegistry(
        {
            name: EnginePredictor(EllipseEngine(before=before), make_manifest(name))
            for name in names or ("balloon",)
        }
    )


def make_client(registry: FakeRegistry, **settings: Any) -> FlaskClient:
    return create_app(ServerSettings(**settings), registry).test_client()


def check_problem(response: TestResponse, status: int, code: str, *words: str) -> None:
    """The shape that every failure of every route has."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem = response.get_json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "instance"}
    assert problem["type"] == f"urn:maskserve:problem:{code}"
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["title"]
    assert problem["instance"].endswith(response.headers["X-Request-Id"])
    for word in words:
        assert word in problem["detail"]
    for secret in ("Traceback", "site-packages", "/src/", ".py"):
        assert secret not in response.text
