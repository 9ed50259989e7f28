"""How much load does a server bear? python benchmarks/load.py http://127.0.0.1:8080 PHOTO...

First some clients at a time send photos, each the next one when the last is answered: that gives
the capacity. Then photos arrive at random (Poisson) at several rates, whether or not earlier ones
are answered, until the server refuses some: that gives the latency. Beside it stands what a
queueing model predicts from the first part alone. The generator is Locust; run it on the server's
own machine or on another one.
"""

from __future__ import annotations

# Locust first: it replaces the blocking calls of the standard library.
from locust import FastHttpUser, constant, task  # isort: skip
from locust.env import Environment  # isort: skip

import argparse
import csv
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gevent
import numpy as np

from maskserve.benchmarking.queueing import wait_in_queue
from maskserve.runtime.files import replacing


@dataclass(frozen=True, slots=True)
class Capacity:
    """What some clients got.

    Attributes:
        clients: How many sent photos at a time.
        per_second: Photos answered.
        mean_ms: From sending a photo to the last byte of its answer.
        variation: Squared coefficient of variation of these times.
    """

    clients: int
    per_second: float
    mean_ms: float
    variation: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What photos that arrived at random got.

    Attributes:
        load: Offered rate as a share of the capacity.
        offered_per_second: Photos sent.
        answered_per_second: With 200.
        refused: Share of the photos that got 503 or 504.
        mean_ms, p50_ms, p95_ms, p99_ms: Of those that were answered.
        predicted_per_second, predicted_ms: Answered, and their mean time, by :func:`predict`.
    """

    load: float
    offered_per_second: float
    answered_per_second: float
    refused: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    predicted_per_second: float
    predicted_ms: float


@dataclass(slots=True)
class Answers:
    """Statuses and times as Locust reports them."""

    times_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def take(self, *, response_time: float, response: Any, **_: Any) -> None:
        self.statuses[response.status_code] += 1
        if response.status_code == 200:
            self.times_ms.append(response_time)

    def require_known(self) -> None:
        """Stop where an answer is none that a busy server may give."""
        unknown = {status for status in self.statuses if status not in (200, 503, 504)}
        if unknown or not self.times_ms:
            raise SystemExit(f"The server answered {dict(self.statuses)}; 0 stands for no answer.")


def predict(
    rate: float, *, capacity: float, alone: Capacity, servers: int, queue: int
) -> tuple[float, float]:
    """Photos answered a second and their mean time in ms, at a rate of arrivals.

    Below the capacity all are answered, after the time that a photo takes alone and a wait in an
    endless queue; no wait is longer than that in a full one, which is what is left above it.
    """
    full_s = queue / capacity
    wait_s = full_s
    if rate < capacity:
        wait_s = wait_in_queue(
            rate, servers=servers, service_s=servers / capacity, variation=alone.variation
        )
    return min(rate, capacity), alone.mean_ms + min(wait_s, full_s) * 1e3


def run_users(users: Iterable[type[FastHttpUser]], url: str, count: int, seconds: float) -> Answers:
    answers = Answers()
    environment = Environment(user_classes=list(users), host=url)
    environment.events.request.add_listener(answers.take)  # type: ignore[no-untyped-call]
    runner = environment.create_local_runner()
    runner.start(count, spawn_rate=count)
    gevent.sleep(seconds)
    runner.stop()  # waits for nobody: requests under way are not counted
    answers.require_known()
    return answers


def measure_capacity(url: str, path: str, photos: list[bytes], clients: int, s: float) -> Capacity:
    class Client(FastHttpUser):
        wait_time = constant(0)

        @task
        def send(self) -> None:
            post(self, path, random.choice(photos))

    answers = run_users([Client], url, clients, s)
    times_ms = np.array(answers.times_ms)
    return Capacity(
        clients,
        per_second=len(times_ms) / s,
        mean_ms=float(times_ms.mean()),
        variation=float(times_ms.var() / times_ms.mean() ** 2),
    )


def measure_latency(
    url: str, path: str, photos: list[bytes], rate: float, seconds: float
) -> tuple[Answers, float]:
    """The answers, and the rate that was really offered."""

    class Crowd(FastHttpUser):
        """Everybody at once: a photo is sent when its time has come, in a greenlet of its own."""

        concurrency = 512
        sent = 0

        def wait_time(self) -> float:
            return random.expovariate(rate)

        @task
        def send(self) -> None:
            Crowd.sent += 1
            gevent.spawn(post, self, path, random.choice(photos))

    started = time.perf_counter()
    answers = run_users([Crowd], url, 1, seconds)
    return answers, Crowd.sent / (time.perf_counter() - started)


def post(user: FastHttpUser, path: str, photo: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
    with user.client.post(
        path,
        data=photo,  # type: ignore[arg-type]
        headers=headers,
        catch_response=True,
    ) as response:
        response.success()  # Answers.require_known judges the status


def measure(arguments: argparse.Namespace) -> tuple[list[Capacity], list[Latency]]:
    random.seed(arguments.seed)
    photos = [path.read_bytes() for path in arguments.photos]
    path = f"/v1/models/{arguments.model}/segment" if arguments.model else "/v1/segment"
    url, seconds = arguments.url, arguments.seconds
    measure_capacity(url, path, photos, 1, min(seconds, 3))  # warms up, and is not counted
    print("clients  photos/s  mean, ms")
    capacities = []
    for clients in arguments.clients:
        found = measure_capacity(url, path, photos, clients, seconds)
        print(f"{clients:7}  {found.per_second:8.1f}  {found.mean_ms:8.1f}", flush=True)
        capacities.append(found)
    alone = capacities[0]
    capacity = max(found.per_second for found in capacities)
    print(
        "\n load  offered/s  answered/s  refused   mean    p50    p95    p99 ms   model: /s    ms"
    )
    latencies = []
    for load in arguments.loads:
        answers, offered = measure_latency(url, path, photos, load * capacity, seconds)
        rate, mean_ms = predict(
            offered,
            capacity=capacity,
            alone=alone,
            servers=arguments.servers,
            queue=arguments.queue,
        )
        times_ms = np.array(answers.times_ms)
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99)).tolist()
        row = Latency(
            load=load,
            offered_per_second=offered,
            answered_per_second=len(times_ms) / seconds,
            refused=1 - answers.statuses[200] / answers.statuses.total(),
            mean_ms=float(times_ms.mean()),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            predicted_per_second=rate,
            predicted_ms=mean_ms,
        )
        print(
            f"{load:5.2f} {offered:10.1f} {row.answered_per_second:11.1f} {row.refused:8.1%}"
            f" {row.mean_ms:6.0f} {p50:6.0f} {p95:6.0f} {p99:6.0f}    {rate:9.1f} {mean_ms:5.0f}",
            flush=True,
        )
        latencies.append(row)
        gevent.sleep(2)  # for the queue to empty
    return capacities, latencies


def write_table(path: Path, rows: list[Any]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, asdict(rows[0]))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def plot(path: Path, latencies: list[Latency]) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415 -- only where a picture is wanted

    rates = [row.offered_per_second for row in latencies]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, values in (
        ("99th percentile", [row.p99_ms for row in latencies]),
        ("mean", [row.mean_ms for row in latencies]),
    ):
        axes.plot(rates, values, marker="o", label=name)
    axes.plot(
        rates, [row.predicted_ms for row in latencies], "--", color="black", label="mean, predicted"
    )
    axes.set(xlabel="photos offered a second", ylabel="ms to the answer", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def numbers(kind: type[int] | type[float]) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", help="of maskserve serve, on Ray or not")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--model", help="one that the server has; its default otherwise")
    parser.add_argument("--clients", type=numbers(int), default=[1, 2, 4, 8], metavar="N,N")
    parser.add_argument(
        "--loads",
        type=numbers(float),
        default=[0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5],
        metavar="X,X",
        help="rates as shares of the capacity",
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each row")
    parser.add_argument("--servers", type=int, default=1, help="photos worked on at a time")
    parser.add_argument("--queue", type=int, default=16, help="photos that may wait")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for CSV tables and a picture")
    arguments = parser.parse_args()

    capacities, latencies = measure(arguments)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_table(arguments.out / "capacity.csv", capacities)
        write_table(arguments.out / "latency.csv", latencies)
        plot(arguments.out / "latency.png", latencies)
        print(f"Written to {arguments.out}")


if __name__ == "__main__":
    main()
