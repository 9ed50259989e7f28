"""What every route that segments a photo does: queue, decode, run the network, select."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from flask import has_request_context, request

from maskserve.api.admission import Deadline
from maskserve.api.observe import note, record_photo
from maskserve.api.request import Request
from maskserve.api.services import Services
from maskserve.api.stopwatch import Stopwatch
from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import check_image, decode_image

__all__ = ["Segmented", "class_names", "segmented", "time_left"]


@dataclass(frozen=True, slots=True)
class Segmented:
    """A photo and what was found in it.

    Attributes:
        manifest: Of the model that found it.
        image: The upright photo, uint8 (H, W, 3) RGB.
        instances: At the photo's resolution, best first.
        stopwatch: Runs since the photo's work began.
    """

    manifest: Manifest
    image: Image
    instances: Instances
    stopwatch: Stopwatch


@contextmanager
def segmented(
    services: Services,
    data: bytes | Callable[[], bytes | Image],
    *,
    model: str,
    min_score: float | None = None,
    classes: list[str] | None = None,
    max_instances: int | None = None,
    background: bool = False,
) -> Iterator[Segmented]:
    """Segment a photo; its place in the queue is held while the block runs.

    What needs the decoded photo, such as drawing, belongs into the block. Stages are reported
    to the metrics behind it. Within a request, the deadline counts from the request's arrival,
    and a photo whose client has left is not begun.

    Args:
        services: Of the app.
        data: The encoded photo, or what unpacks it, which is called once there is a place; it
            may give the decoded photo, whose size it has checked.
        model: Name of a loaded model.
        min_score: By default the model's own threshold.
        classes: Names of the classes to keep; None for all.
        max_instances: Keep only so many, the best.
        background: Wait behind all photos of requests, for as long as it takes.

    Raises:
        UnknownModelError: No such model is configured.
        ServerNotReadyError: The model is still loading, or could not be loaded.
        UnknownClassError: With the nearest known name.
        ServerFullError: More photos wait than the queue takes.
        DeadlineError: The photo waited too long, or its network took too long.
        ImageError: The photo cannot be decoded, or is too large.
    """
    note(model=model)
    stopwatch = Stopwatch()
    predictor = services.registry.get(model)
    _indices(classes, predictor.manifest)  # what is refused need not wait
    deadline = None if background else _deadline(services.settings.deadline_s)
    admission = services.admission
    with admission.place(background=background):
        encoded = data if isinstance(data, bytes) else data()
        if isinstance(encoded, bytes):
            check_image(encoded, limits=services.limits)
        with admission.turn(deadline=deadline, background=background) as queued_ms:
            stopwatch.add(queue=queued_ms)
            _require_client()
            with stopwatch.stage("decode"):
                image = (
                    decode_image(encoded, limits=services.limits)
                    if isinstance(encoded, bytes)
                    else encoded
                )
            if deadline:
                deadline.check(what="it was decoded too late")
            # A network that runs is never stopped: OpenVINO's cancelling leaves graphs of
            # changing sizes in disorder, of which later photos fail or the process dies.
            instances, times = predictor.predict_timed(image, min_score=min_score)
            stopwatch.add(infer=times.infer_ms, paste=times.paste_ms)
        if deadline:
            deadline.check(what="the network finished too late")
        manifest = predictor.manifest  # elsewhere, another version may have answered meanwhile
        wanted = _indices(classes, manifest)
        yield Segmented(manifest, image, _keep(instances, wanted, max_instances), stopwatch)
    stopwatch.stop()
    record_photo(services, model=model, stopwatch=stopwatch, background=background)


def time_left(allowed_s: float) -> float:
    """Seconds until the current request must be answered; outside of one, ``allowed_s``."""
    return _deadline(allowed_s).left_s


def class_names(classes: str | None) -> list[str] | None:
    """What a parameter such as ``a,b`` names; None for all."""
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",")]
    if not all(names):
        raise ParameterError("classes: a name is empty.", hint="Separate names by one comma.")
    return names


def _indices(classes: list[str] | None, manifest: Manifest) -> list[int] | None:
    return None if classes is None else [manifest.categories.index_of(name) for name in classes]


def _deadline(allowed_s: float) -> Deadline:
    """That of the current request; outside of one, time begins to run now."""
    if has_request_context() and isinstance(request, Request):
        return Deadline.after(allowed_s, arrived_s=request.arrived_s)
    return Deadline.after(allowed_s)


def _require_client() -> None:
    if has_request_context() and isinstance(request, Request):
        request.require_client()


def _keep(
    instances: Instances, class_indices: list[int] | None, max_instances: int | None
) -> Instances:
    """The best ``max_instances`` of the wanted classes."""
    keep = np.ones(len(instances), dtype=np.bool_)
    if class_indices is not None:
        keep = np.isin(instances.class_indices, class_indices)
    if max_instances is not None:
        keep &= np.cumsum(keep) <= max_instances
    return instances.select(keep)
