"""The parts of a run over many photos, worked off by the machines of a Ray cluster."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayError

from maskserve.batch.run import PartSummary, Run
from maskserve.batch.worker import PartWorker
from maskserve.cluster.ray_setup import prepare_ray
from maskserve.core.errors import EngineError, MaskserveError
from maskserve.runtime.bundle import Bundle
from maskserve.runtime.model_cache import user_cache
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.registry import load_engine

__all__ = ["work_on_ray"]


def work_on_ray(
    run: Run, bundle: Bundle, parts: Sequence[int], *, actors: int | None = None
) -> Iterator[PartSummary]:
    """Work off parts in actors, each of which has loaded the model and has one CPU.

    Neither photos nor rows pass through Ray: actors read and write the stores themselves. A part
    whose actor dies is begun anew by another one.

    Args:
        run: Its photos and its folder must be the same on every node.
        bundle: The model, which is sent to the nodes.
        parts: Numbers of parts, at least one.
        actors: How many; those that find no CPU wait for one, on nodes that join, too. By default
            as many as the cluster has CPUs now.

    Yields:
        A summary of each part as soon as it is done, in any order.

    Raises:
        DownloadError: The photos' store cannot be reached.
        OutputError: Rows cannot be written.
        EngineError: Ray failed.
    """
    _connect()
    cpus = int(ray.cluster_resources().get("CPU", 1))
    # One block a part, so that what is begun anew after an actor's death is one part.
    dataset = ray.data.from_items(list(parts), override_num_blocks=len(parts)).map_batches(
        _Actor,
        fn_constructor_args=(run, ray.put(bundle)),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(
            size=actors or max(1, min(len(parts), cpus)),
            max_tasks_in_flight_per_actor=1,  # the next part goes to whoever is idle first
        ),
    )
    try:
        for row in dataset.iter_rows():
            outcome: PartSummary | MaskserveError = pickle.loads(row["outcome"])
            if isinstance(outcome, MaskserveError):
                raise outcome
            yield outcome
    except RayError as error:
        raise EngineError(
            f"Ray could not go on: {error}",
            hint="What is done stays done; the same command goes on.",
        ) from error


def _connect() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names or that runs here, or start one for this process.

    Of what Ray says by itself only errors are shown, and not one that is none: that actors of Ray
    Data, which are restarted, get what they are made of from the object store.
    """
    prepare_ray()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _Actor:
    """A :class:`PartWorker` that Ray Data calls with batches of one part."""

    def __init__(self, run: Run, bundle: ray.ObjectRef[Bundle]) -> None:
        model: Bundle = ray.get(bundle)
        engine = load_engine(model, threads=1, cache=user_cache())
        self._worker = PartWorker(run, EnginePredictor(engine, model.manifest))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcome: PartSummary | MaskserveError
        try:
            outcome = self._worker.work(int(batch["item"][0]))
        except MaskserveError as error:  # Ray would wrap it
            outcome = error
        return {"outcome": np.array([pickle.dumps(outcome)], dtype=object)}
