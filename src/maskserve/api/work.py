"""What every route that segments a photo does: queue, decode, run the network, select."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from maskserve.api.services import Services
from maskserve.core.errors import ParameterError
from maskserve.core.manifest import Manifest
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.runtime.image_io import decode_image

__all__ = ["Segmented", "Stopwatch", "class_names", "segmented"]


class Stopwatch:
    """Milliseconds by stage of one request."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.spent_ms = dict.fromkeys(("decode", "queue", "infer", "paste", "draw"), 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.spent_ms[name] = (time.perf_counter() - start) * 1e3

    def add(self, **spent_ms: float) -> None:
        self.spent_ms.update(spent_ms)

    def stop(self) -> dict[str, float]:
        self.spent_ms["total"] = (time.perf_counter() - self._start) * 1e3
        return self.spent_ms


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
    data: bytes,
    *,
    model: str,
    min_score: float | None = None,
    classes: list[str] | None = None,
    max_instances: int | None = None,
) -> Iterator[Segmented]:
    """Segment a photo; its place in the queue is held while the block runs.

    What needs the decoded photo, such as drawing, belongs into the block: the number of places
    bounds the decoded photos in memory. Stages are reported to the metrics behind it.

    Args:
        services: Of the app.
        data: The encoded photo.
        model: Name of a loaded model.
        min_score: By default the model's own threshold.
        classes: Names of the classes to keep; None for all.
        max_instances: Keep only so many, the best.

    Raises:
        UnknownModelError: No such model is configured.
        ServerNotReadyError: The model is still loading, or could not be loaded.
        UnknownClassError: With the nearest known name.
        ServerFullError: More photos wait than the queue takes.
        DeadlineError: The photo waited too long.
        ImageError: The photo cannot be decoded, or is too large.
    """
    stopwatch = Stopwatch()
    predictor = services.registry.get(model)
    manifest = predictor.manifest
    wanted = None if classes is None else [manifest.categories.index_of(name) for name in classes]
    with services.admission.place():
        with stopwatch.stage("decode"):
            image = decode_image(data, limits=services.limits)
        with services.admission.turn() as queued_ms:
            instances, times = predictor.predict_timed(image, min_score=min_score)
        stopwatch.add(queue=queued_ms, infer=times.infer_ms, paste=times.paste_ms)
        yield Segmented(manifest, image, _keep(instances, wanted, max_instances), stopwatch)
    services.metrics.observe_stages(stopwatch.stop())


def class_names(classes: str | None) -> list[str] | None:
    """What a parameter such as ``a,b`` names; None for all."""
    if classes is None:
        return None
    names = [name.strip() for name in classes.split(",")]
    if not all(names):
        raise ParameterError("classes: a name is empty.", hint="Separate names by one comma.")
    return names


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
