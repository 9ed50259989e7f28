"""Everything about a model's speed on this machine, measured in one go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskserve.benchmarking.clients import send_photo, send_photos
from maskserve.benchmarking.machine import describe_machine, mean_load
from maskserve.benchmarking.server import ServerProcess
from maskserve.benchmarking.stages import STAGES, time_stages
from maskserve.runtime.bundle import find_bundle, read_bundle
from maskserve.runtime.image_io import FILE_LIMITS, decode_image
from maskserve.runtime.memory import ProcessMemory
from maskserve.runtime.openvino_engine import measure_cost, measure_peak
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.preprocess import to_graph_input
from maskserve.runtime.registry import load_engine

__all__ = ["ANSWERS", "Benchmark", "Memory", "Serving", "Start", "Times", "run_benchmark"]

OnProgress = Callable[[str, int, int], None]

ANSWERS = ("image/jpeg", "application/json")
"""Media types of the answers that are timed: the drawn photo, and masks as run lengths."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of something that was done many times."""

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, times_ms: npt.NDArray[np.float64]) -> Times:
        median, p95 = np.percentile(times_ms, [50, 95])
        return cls(float(median), float(p95))


@dataclass(frozen=True, slots=True)
class Serving:
    """What some clients saw who sent photos at a time.

    Attributes:
        answer: Media type of what they asked for.
        clients: How many there were.
        requests: How many photos they sent in all.
        times: From sending a photo to the last byte of its answer.
        per_second: Answers.
    """

    answer: str
    clients: int
    requests: int
    times: Times
    per_second: float


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from starting the server's process to its first signs of life.

    Attributes:
        listening_s: It takes connections.
        ready_s: The model is loaded and warm.
        answered_s: The first photo is answered.
    """

    listening_s: float
    ready_s: float
    answered_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Physical memory of the process that serves, in units of 10⁶ bytes.

    Attributes:
        ready_mb: Once the model was ready.
        after_mb: After all requests.
        peak_mb: The most at any time.
    """

    ready_mb: float
    after_mb: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How fast a model is on this machine.

    Attributes:
        model: Its name and version.
        machine: In words.
        load: How many programs were busy at the start; None on Windows.
        versions: Of the software, by package.
        arithmetic: What the network computes with, such as ``bf16``.
        threads: CPU threads that one inference uses.
        rounds: How often each thing was timed.
        photos: Width, height and instances found of each photo, in pixels.
        stages: By :data:`maskserve.benchmarking.stages.STAGES`, and ``all`` of them.
        gmacs: Multiply-accumulate operations of the network for a photo, in 10⁹, as a mean.
        peak_gmacs_per_s: What the cores do at most, in the same arithmetic.
        serving: By answer and number of clients.
        memory: None where Linux is not.
        first_start: With nothing in the cache of compiled models.
        next_start: With what the first start left there.
    """

    model: str
    machine: str
    load: float | None
    versions: Mapping[str, str]
    arithmetic: str
    threads: int
    rounds: int
    photos: Sequence[tuple[int, int, int]]
    stages: Mapping[str, Times]
    gmacs: float
    peak_gmacs_per_s: float
    serving: Sequence[Serving]
    memory: Memory | None
    first_start: Start
    next_start: Start

    @property
    def floor_ms(self) -> float:
        """The time that the network would take if every core computed all the time."""
        return self.gmacs / self.peak_gmacs_per_s * 1e3

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; keys are the attributes' names."""
        return {**asdict(self), "floor_ms": self.floor_ms}


def run_benchmark(
    model: str | Path,
    photos: Sequence[bytes],
    *,
    clients: Sequence[int],
    rounds: int,
    on_progress: OnProgress | None = None,
) -> Benchmark:
    """Measure a model: its stages in this process, all else through a server of its own.

    Args:
        model: A shipped bundle's name, or the path of a bundle.
        photos: Contents of files, at least one; taken in turn.
        clients: How many clients send photos at a time, one number after the other.
        rounds: How often the stages are timed, and how many photos each client sends.
        on_progress: Is told the step, how much of it is done, and of how much.

    Raises:
        MaskserveError: The model cannot be loaded, or a photo not be decoded.
        EngineError: The network or the server failed.
    """
    report = on_progress or _report_nothing
    load = mean_load()
    bundle = read_bundle(find_bundle(model))
    manifest = bundle.manifest
    engine = load_engine(bundle)
    predictor = EnginePredictor(engine, manifest)
    images = [decode_image(photo, limits=FILE_LIMITS) for photo in photos]
    found = [len(predictor.predict(image)) for image in images]
    (times,) = time_stages(
        [predictor], photos, rounds=rounds, on_progress=partial(report, "Timing stages")
    )
    report("Counting operations", 0, 1)
    macs = [
        measure_cost(
            bundle.model,
            to_graph_input(image, manifest.preprocess),
            min_score=manifest.postprocess.min_score,
        ).macs
        for image in images
    ]
    peak = measure_peak(precision=manifest.arithmetic)
    serving: list[Serving] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        environment = {"XDG_CACHE_HOME": cache, "LOCALAPPDATA": cache, "HOME": cache}
        starts = []
        for number in range(2):
            report("Starting the server", number, 2)
            with ServerProcess([bundle.path], environment=environment) as server:
                starts.append(_finish_start(server, photos[0]))
                if number == 0:
                    continue
                ready = server.memory
                plan = [(answer, count) for answer in ANSWERS for count in clients]
                for done, (answer, count) in enumerate(plan):
                    report("Sending photos", done, len(plan))
                    traffic = send_photos(
                        server.connect, photos, accept=answer, clients=count, rounds=rounds
                    )
                    serving.append(
                        Serving(
                            answer,
                            count,
                            len(traffic.times_ms),
                            Times.of(traffic.times_ms),
                            traffic.per_second,
                        )
                    )
                memory = _compare_memory(ready, server.memory)
    return Benchmark(
        model=f"{manifest.name} {manifest.version}",
        machine=describe_machine(),
        load=load,
        versions={name: version(name) for name in ("maskserve", "openvino", "pillow")},
        arithmetic=engine.arithmetic,
        threads=engine.threads,
        rounds=rounds,
        photos=[
            (image.shape[1], image.shape[0], count)
            for image, count in zip(images, found, strict=True)
        ],
        stages={
            **{stage: Times.of(times[:, i]) for i, stage in enumerate(STAGES)},
            "all": Times.of(times.sum(axis=1)),
        },
        gmacs=float(np.mean(macs)) / 1e9,
        peak_gmacs_per_s=peak / 1e9,
        serving=serving,
        memory=memory,
        first_start=starts[0],
        next_start=starts[1],
    )


def _report_nothing(_step: str, _done: int, _total: int) -> None:
    pass


def _finish_start(server: ServerProcess, photo: bytes) -> Start:
    """Send the first photo."""
    connection = server.connect()
    try:
        send_photo(connection, photo, accept=ANSWERS[0])
        return Start(server.listening_s, server.ready_s, server.age_s)
    finally:
        connection.close()


def _compare_memory(ready: ProcessMemory | None, after: ProcessMemory | None) -> Memory | None:
    if ready is None or after is None:
        return None
    return Memory(ready.resident_bytes / 1e6, after.resident_bytes / 1e6, after.peak_bytes / 1e6)
