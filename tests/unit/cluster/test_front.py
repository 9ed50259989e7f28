"""The front's registry, around handles whose replicas do as the test says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from api_fakes import make_client, make_manifest, make_registry
from maskserve.cluster import front
from maskserve.cluster.front import RemoteRegistry
from maskserve.cluster.replica import Prediction
from maskserve.core.errors import (
    DeadlineError,
    EngineError,
    ServerFullError,
    ServerNotReadyError,
    UnknownModelError,
)
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.runtime.image_io import encode_image

PHOTO = np.zeros((48, 64, 3), np.uint8)
LOST = [
    ActorDiedError(),
    ActorUnavailableError("unavailable", b"\x01" * 16),
    NodeDiedError("the node died"),  # type: ignore[no-untyped-call]
    ObjectLostError("00", None, ""),
    WorkerCrashedError(),
]


class Answer:
    """As a ``DeploymentResponse``."""

    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self.cancelled = False

    def result(self, *, timeout_s: float | None = None) -> Any:
        del timeout_s
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """As the handle of a model's deployment; predicts, but for the ``outcomes`` that come first.

    Attributes:
        answers: To calls of ``predict``, in their order.
        known: The versions that these calls named.
    """

    def __init__(self, name: str, *outcomes: Any, loading: Sequence[Exception] = ()) -> None:
        self._predictor = make_registry(name).get(name)
        self._loading: Iterator[Any] = iter(loading)
        self._outcomes: Iterator[Any] = iter(outcomes)
        self.answers: list[Answer] = []
        self.known: list[str] = []
        self.manifest = Method(lambda: Answer(next(self._loading, self._predictor.manifest)))
        self.predict = Method(self._predict)

    def _predict(self, image: Image, *, min_score: float | None, known: Manifest) -> Answer:
        self.known.append(known.version)
        outcome = next(self._outcomes, None)
        if outcome is None:
            instances, times = self._predictor.predict_timed(image, min_score=min_score)
            outcome = Prediction(instances, times, None)
        self.answers.append(Answer(outcome))
        return self.answers[-1]


class Method:
    def __init__(self, function: Any) -> None:
        self.remote = function


def make_remote(*outcomes: Any, deadline_s: float = 30) -> tuple[RemoteRegistry, Handle]:
    handle = Handle("balloon", *outcomes)
    handles: dict[str, Any] = {"balloon": handle, "kite": Handle("kite")}
    manifests = {name: make_manifest(name) for name in handles}
    return RemoteRegistry(handles, manifests, deadline_s=deadline_s), handle


def raised_in_replica(error: Exception) -> Exception:
    """The error as a handle raises it."""
    wrapped: Exception = RayTaskError(  # type: ignore[no-untyped-call]
        "predict", "Traceback …", error
    ).as_instanceof_cause()
    return wrapped


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_PAUSE_S", 0)


def test_answers_are_those_of_models_here() -> None:
    registry, _ = make_remote()
    photo = encode_image(PHOTO, "image/png")
    remote, here = (
        make_client(models).post("/v1/segment", data=photo).get_json()  # type: ignore[arg-type]
        for models in (registry, make_registry("balloon", "kite"))
    )
    for key in ("model", "image", "coverage", "instances"):
        assert remote[key] == here[key]


@pytest.mark.parametrize("lost", LOST, ids=lambda error: type(error).__name__)
def test_a_photo_is_sent_again_where_its_replica_is_lost(lost: Exception) -> None:
    registry, handle = make_remote(lost, raised_in_replica(lost), lost)
    instances, _ = registry.get("balloon").predict_timed(PHOTO)
    assert len(instances) == 2
    assert len(handle.answers) == 4


def test_errors_of_a_replica_come_through() -> None:
    error = EngineError("It failed.", hint="Try another photo.")
    registry, handle = make_remote(raised_in_replica(error))
    with pytest.raises(EngineError, match=r"It failed\. Try another photo\.") as caught:
        registry.get("balloon").predict_timed(PHOTO)
    assert type(caught.value) is EngineError
    assert len(handle.answers) == 1


def test_a_full_queue_is_a_problem_to_retry() -> None:
    registry, _ = make_remote(BackPressureError(64, 64))
    with pytest.raises(ServerFullError, match="64 photos wait"):
        registry.get("balloon").predict_timed(PHOTO)


def test_an_answer_that_is_late_is_given_up() -> None:
    registry, handle = make_remote(TimeoutError())
    with pytest.raises(DeadlineError):
        registry.get("balloon").predict_timed(PHOTO)
    assert handle.answers[0].cancelled


def test_replicas_that_are_lost_until_the_deadline_are_not_waited_for() -> None:
    registry, _ = make_remote(*[LOST[1]] * 10_000, deadline_s=0)
    with pytest.raises(DeadlineError):
        registry.get("balloon").predict_timed(PHOTO)


def test_a_photo_does_not_kill_every_replica() -> None:
    registry, handle = make_remote(*[ActorDiedError()] * 10)
    with pytest.raises(EngineError, match="died with a photo of 64 x 48 pixels"):
        registry.get("balloon").predict_timed(PHOTO)
    assert len(handle.answers) == 5


def test_a_model_that_no_replica_can_load_is_not_ready() -> None:
    registry, _ = make_remote(DeploymentUnavailableError(DeploymentID("balloon")))
    with pytest.raises(ServerNotReadyError, match="No replica can load the model “balloon”"):
        registry.get("balloon").predict_timed(PHOTO)


def test_a_model_of_another_name_is_unknown() -> None:
    registry, _ = make_remote()
    with pytest.raises(UnknownModelError, match="Did you mean “balloon”"):
        registry.get("baloon")


def test_photos_are_taken_before_the_models_are_known_to_be_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    failures = [ActorDiedError(), BackPressureError(64, 64), WorkerCrashedError()]
    registry = RemoteRegistry(
        {"balloon": Handle("balloon", loading=failures)},  # type: ignore[dict-item]
        {"balloon": make_manifest("balloon")},
        deadline_s=30,
    )
    assert not registry.ready
    registry.get("balloon").predict_timed(PHOTO)
    registry.load()
    assert registry.ready


def test_the_version_that_answers_is_named() -> None:
    there = make_registry("balloon").get("balloon")
    changed = make_manifest("balloon").model_copy(update={"version": "2.0.0"})
    registry, handle = make_remote(Prediction(*there.predict_timed(PHOTO), changed))
    first, second = registry.get("balloon"), registry.get("balloon")
    first.predict_timed(PHOTO)
    assert first.manifest.version == registry.get("balloon").manifest.version == "2.0.0"
    # The other one has the old manifest, so it must hear of a change, too.
    second.predict_timed(PHOTO)
    registry.get("balloon").predict_timed(PHOTO)
    assert handle.known == ["1.0.0", "1.0.0", "2.0.0"]
