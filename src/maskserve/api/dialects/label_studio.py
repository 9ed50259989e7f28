"""Label Studio's protocol for machine learning backends, which pre-annotates its tasks.

``http://HOST:PORT`` is a backend with the default model, ``http://HOST:PORT/label-studio/MODEL``
one with a named model. https://labelstud.io/guide/ml
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from pydantic import BaseModel, Field

from maskserve.api.dialects.bodies import parse_json, read_body
from maskserve.api.dialects.label_config import LabelConfig, read_label_config
from maskserve.api.dialects.regions import to_prediction
from maskserve.api.dialects.task_photos import TaskPhotos
from maskserve.api.services import Services, current_services
from maskserve.api.work import segmented
from maskserve.core.errors import ImageError, MaskserveError, ParameterError, ServerUnreachableError
from maskserve.core.manifest import Manifest

__all__ = ["register_label_studio"]

_EXTENSION = "maskserve.label_studio"

_OF_ONE_TASK = (ImageError, ParameterError, ServerUnreachableError)
"""Errors that say nothing about the other tasks of a request."""

_log = logging.getLogger(__name__)

_blueprint = Blueprint("label_studio", __name__)


class _SetUp(BaseModel):
    label_config: str = Field(alias="schema")


class _Task(BaseModel):
    id: int | None = None
    data: dict[str, Any]


class _Predict(BaseModel):
    tasks: list[_Task]
    label_config: str


def register_label_studio(app: Flask) -> None:
    """Add the routes of a backend, for the default model and for each model by its name."""
    services: Services = app.extensions["maskserve"]
    app.extensions[_EXTENSION] = TaskPhotos(services.settings)
    app.register_blueprint(_blueprint)
    app.register_blueprint(
        _blueprint, name="label_studio_model", url_prefix="/label-studio/<model>"
    )


@_blueprint.get("/health")
def health(model: str | None = None) -> Response:
    return jsonify(status="UP", model_class=model or "maskserve")


@_blueprint.post("/setup")
def set_up(model: str | None = None) -> Response:
    """Called when the backend is connected, and before each prediction.

    The access token that comes along is not looked at: what a request says must not decide
    which machine is asked for photos.
    """
    asked = parse_json(_SetUp, read_body(request), admission=current_services().admission)
    manifest = _manifest(model)
    config = read_label_config(asked.label_config)
    _tell_unlabelled(manifest, config)
    return jsonify(model_version=_model_version(manifest))


@_blueprint.post("/predict")
def predict(model: str | None = None) -> Response:
    """Predictions for each task, in the same order.

    A photo that cannot be had or used must not cost the others their predictions: it gets none,
    and the log says why. If no task can be predicted, the first one's error is the answer.
    """
    admission = current_services().admission
    admission.refuse_if_full()
    asked = parse_json(_Predict, read_body(request), admission=admission)
    manifest = _manifest(model)
    config = read_label_config(asked.label_config)
    _tell_unlabelled(manifest, config)
    results: list[dict[str, Any] | list[Any]] = []
    errors: list[MaskserveError] = []
    for task in asked.tasks:
        try:
            results.append(_predict(task, manifest, config, is_alone=len(asked.tasks) == 1))
        except _OF_ONE_TASK as error:
            _log.warning("%s: task %s has no prediction: %s", g.request_id, task.id, error)
            errors.append(error)
            results.append([])
    if errors and len(errors) == len(asked.tasks):
        raise errors[0]
    return jsonify(results=results)


@_blueprint.post("/webhook")
def webhook(model: str | None = None) -> Response:
    """Annotations were made, or training was asked for: neither has an effect here."""
    return jsonify(status="ignored", detail=f"{_manifest(model).name} is trained elsewhere.")


def _manifest(model: str | None) -> Manifest:
    registry = current_services().registry
    return registry.get(registry.names[0] if model is None else model).manifest


def _model_version(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version}"


def _predict(
    task: _Task, manifest: Manifest, config: LabelConfig, *, is_alone: bool
) -> dict[str, Any]:
    photos: TaskPhotos = current_app.extensions[_EXTENSION]
    with segmented(
        current_services(),
        lambda: photos.read(task.data.get(config.data_key)),
        model=manifest.name,
        min_score=config.min_score,
        background=not is_alone,  # somebody waits for the one, but not for each of many
    ) as work:
        return to_prediction(work.instances, config, model_version=_model_version(manifest))


def _tell_unlabelled(manifest: Manifest, config: LabelConfig) -> None:
    unlabelled = tuple(name for name in manifest.classes if config.label_of(name) is None)
    if unlabelled:
        _log_once(manifest.name, config.from_name, unlabelled)


@lru_cache(maxsize=256)
def _log_once(model: str, control: str, unlabelled: tuple[str, ...]) -> None:
    _log.warning(
        "model %s: left out, since “%s” has no label for them: %s",
        model,
        control,
        ", ".join(unlabelled),
    )
