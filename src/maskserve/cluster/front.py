"""The front: the Flask app of ``maskserve.api``, whose models are elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, cast

from a2wsgi import WSGIMiddleware
from ray import serve
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)
from ray.serve.handle import DeploymentHandle

from maskserve.api.logs import set_up_logging
from maskserve.api.server import make_app
from maskserve.api.settings import ServerSettings
from maskserve.api.work import time_left
from maskserve.cluster.replica import Prediction
from maskserve.core.errors import (
    DeadlineError,
    EngineError,
    MaskserveError,
    ServerFullError,
    ServerNotReadyError,
)
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.allocator import return_large_blocks
from maskserve.runtime.predictor import StageTimes
from maskserve.runtime.registry import unknown_model

if TYPE_CHECKING:
    from a2wsgi.wsgi_typing import WSGIApp

__all__ = ["Front", "RemotePredictor", "RemoteRegistry"]

_REPLICA_LOST = (ObjectLostError, RayActorError, NodeDiedError, WorkerCrashedError, CancelledError)
"""The replica or its node died, with the photo or before its answer was fetched."""
_DEATHS = 5
"""After so many replicas died with a photo, it is the photo's fault."""
_PAUSE_S = 0.05
"""Before a photo goes to another replica: until then the dead one may still be chosen."""


@serve.ingress()
class Front:
    """A replica of the front.

    Args:
        settings: How to serve.
        models: Handles of the models' deployments by name; the first is the default model.
        manifests: Of the bundles that the models begin with.
    """

    def __init__(
        self,
        settings: ServerSettings,
        models: dict[str, DeploymentHandle[Any]],
        manifests: dict[str, Manifest],
    ) -> None:
        set_up_logging(settings.log_level)
        return_large_blocks()
        self._settings = settings
        self._registry = RemoteRegistry(models, manifests, deadline_s=settings.deadline_s)

    def __serve_build_asgi_app__(self) -> WSGIMiddleware:
        # The app refuses photos beyond concurrency + queue_size; the other threads say so.
        app = cast("WSGIApp", make_app(self._settings, self._registry))
        return WSGIMiddleware(app, workers=self._settings.threads)


class RemoteRegistry:
    """Models in other processes, for the app; as ``runtime.ModelRegistry``.

    Photos may come before anything is loaded, since replicas of the front are added and replaced
    under load: they wait in the model's queue.

    Args:
        models: Handles by name; the first is the default model.
        manifests: By name; later those of the replicas that answered last.
        deadline_s: How long a request may take in all.

    Attributes:
        failures: Always empty: a deployment whose replicas cannot load is not ready.
    """

    def __init__(
        self,
        models: Mapping[str, DeploymentHandle[Any]],
        manifests: Mapping[str, Manifest],
        *,
        deadline_s: float,
    ) -> None:
        self._models = models
        self._manifests = dict(manifests)
        self._deadline_s = deadline_s
        self._warm: set[str] = set()
        self.failures: dict[str, MaskserveError] = {}

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._models)

    @property
    def ready(self) -> bool:
        """Whether every model has a replica that has answered a warm-up, or had one."""
        return len(self._warm) == len(self._models)

    def load(self) -> None:
        """Wait until every model has a replica."""
        for name, handle in self._models.items():
            while name not in self._warm:
                try:
                    self._manifests[name] = handle.manifest.remote().result()
                    self._warm.add(name)
                except (RayError, RayServeException, CancelledError):
                    time.sleep(1)

    def reload(self) -> dict[str, MaskserveError | None]:
        """Nothing changes by itself: Serve's config says which bundles are loaded."""
        return {}

    def get(self, name: str) -> RemotePredictor:
        """A predictor for one photo.

        Raises:
            UnknownModelError: There is no such model.
        """
        if name in self._models:
            return RemotePredictor(self, name, self._manifests[name], deadline_s=self._deadline_s)
        raise unknown_model(name, self.names)

    def send(
        self, name: str, image: Image, min_score: float | None, *, known: Manifest, timeout_s: float
    ) -> Prediction:
        """Have one replica predict.

        Raises:
            MaskserveError: As the replica says.
            ServerFullError: More photos wait for the model than its deployment takes.
            ServerNotReadyError: No replica can load the model.
            TimeoutError: No answer came in time.
        """
        answer = self._models[name].predict.remote(image, min_score=min_score, known=known)
        try:
            prediction: Prediction = answer.result(timeout_s=timeout_s)
        except TimeoutError:
            answer.cancel()
            raise
        except BackPressureError as error:
            raise ServerFullError(
                f"{error.args[1]} photos wait for the model “{name}”, which is all that are taken.",
                hint="Try again in a moment.",
            ) from None
        except DeploymentUnavailableError:
            raise ServerNotReadyError(
                f"No replica can load the model “{name}”.", hint="`serve status` says why."
            ) from None
        except RayTaskError as error:
            if isinstance(error.cause, MaskserveError):
                raise error.cause from None
            raise
        if prediction.manifest is not None:
            self._manifests[name] = prediction.manifest
        return prediction


class RemotePredictor:
    """A model for one photo; as ``runtime.EnginePredictor``.

    Attributes:
        manifest: Of the replica that answered; before, of the one that answered last.
    """

    def __init__(
        self, registry: RemoteRegistry, name: str, manifest: Manifest, *, deadline_s: float
    ) -> None:
        self._registry = registry
        self._name = name
        self._deadline_s = deadline_s
        self.manifest = manifest

    def predict_timed(
        self, image: Image, *, min_score: float | None = None
    ) -> tuple[Instances, StageTimes]:
        """Send the photo, and again as long as replicas are lost on the way.

        Raises:
            MaskserveError: As :meth:`RemoteRegistry.send` does.
            EngineError: Replica after replica died with this photo.
            DeadlineError: No answer came in time.
        """
        ends_s = time.monotonic() + time_left(self._deadline_s)
        deaths = 0
        while (left_s := ends_s - time.monotonic()) > 0:
            try:
                prediction = self._registry.send(
                    self._name, image, min_score, known=self.manifest, timeout_s=left_s
                )
            except TimeoutError:
                break
            except _REPLICA_LOST as error:
                deaths += isinstance(error, ActorDiedError)
                if deaths == _DEATHS:
                    height, width = image.shape[:2]
                    raise EngineError(
                        f"{deaths} replicas of the model “{self._name}” died with a photo of "
                        f"{width} x {height} pixels.",
                        hint="Their memory may be too small.",
                    ) from error
                time.sleep(_PAUSE_S)
                continue
            if prediction.manifest is not None:
                self.manifest = prediction.manifest
            return prediction.instances, prediction.times
        raise DeadlineError(
            f"No replica of the model “{self._name}” answered in time.",
            hint="Try again when the cluster is less busy.",
        )
