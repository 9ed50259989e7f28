"""A real Ray cluster of two nodes serves while replicas, a node and a bundle are taken away."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

pytest.importorskip("ray", reason="the extra “ray” is not installed")
from ray.cluster_utils import Cluster

from maskserve.api import ServerSettings, create_app
from maskserve.cluster.ray_setup import prepare_ray
from maskserve.runtime.bundle import shipped_bundles
from maskserve.runtime.registry import ModelRegistry

# Ray's own helper for clusters leaves sockets open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

PORT = 8187
URL = f"http://127.0.0.1:{PORT}"
MODEL = "balloon-fast"
EXAMPLE = Path(__file__).parents[2] / "src" / "maskserve" / "api" / "static" / "example.jpg"
WAIT_S = 180
CLIENTS = 4
JPEG = {"Content-Type": "image/jpeg"}


class Ray:
    """A cluster of two nodes on this machine, whose head has the proxy."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "serve.yaml"
        node: dict[str, Any] = {"num_cpus": 3, "object_store_memory": 150 * 2**20}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        self._worker = self._cluster.add_node(**node)
        self._settings: dict[str, Any] | None = None

    def deploy(self, bundle: str, **settings: Any) -> None:
        """What ``serve run CONFIG`` does, until all replicas are ready."""
        replicas = {"autoscaling_config": None, "num_replicas": 2, "max_replicas_per_node": 1}
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": PORT},
            "applications": [
                {
                    "name": "maskserve",
                    "route_prefix": "/",
                    "import_path": "maskserve.cluster:app",
                    "args": {"models": [MODEL], **settings},
                    "deployments": [
                        {"name": "http", "ray_actor_options": {"num_cpus": 0.5}, **replicas},
                        {
                            "name": MODEL,
                            "user_config": {"bundle": bundle},
                            "ray_actor_options": {"num_cpus": 1},
                            **replicas,
                        },
                    ],
                }
            ],
        }
        self._config.write_text(yaml.safe_dump(config))
        command = ["run", "--non-blocking", "--address", self._cluster.address, str(self._config)]
        serve = Path(sys.executable).with_name("serve")
        before = set() if settings == self._settings else pids(self.replicas("http"))
        subprocess.run([serve, *command], check=True, timeout=WAIT_S, capture_output=True)
        wait_for(lambda: len(pids(self.replicas("http")) - before) == 2)  # they roll one by one
        self._settings = settings
        wait_for(lambda: requests.get(f"{URL}/readyz", timeout=5).status_code == 200)

    def replicas(self, deployment: str) -> list[psutil.Process]:
        title = f"ray::ServeReplica:maskserve:{deployment}"
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if " ".join(process.info["cmdline"] or ()).startswith(title)
        ]

    def kill_worker(self) -> None:
        self._cluster.remove_node(self._worker, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


def pids(processes: list[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    before = dict(os.environ)
    prepare_ray()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # it would write a token into the home folder
    cluster = Ray(tmp_path_factory.mktemp("ray"))
    try:
        yield cluster
    finally:
        cluster.end()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def deployed(ray: Ray) -> Ray:
    ray.deploy(MODEL)
    return ray


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.config.getoption("--seed"))


def wait_for(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + WAIT_S
    while True:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        assert time.monotonic() < ends_s, "it did not happen"
        time.sleep(0.2)


def post(path: str = "/v1/segment", data: bytes | None = None) -> requests.Response:
    body = EXAMPLE.read_bytes() if data is None else data
    return requests.post(URL + path, data=body, headers=JPEG, timeout=60)


class Load:
    """Clients that send the example again and again while the block runs."""

    def __init__(self, clients: int = CLIENTS) -> None:
        self.answers: list[requests.Response] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._clients = clients
        self._futures: list[Future[None]] = []

    def _send(self) -> None:
        while not self._stop.is_set():
            self.answers.append(post())

    def __enter__(self) -> Load:
        self._futures = [self._pool.submit(self._send) for _ in range(self._clients)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for future in self._futures:
            future.result()  # raises what a client met, such as a broken connection

    def wait_for_answers(self, count: int) -> None:
        seen = len(self.answers)
        wait_for(lambda: len(self.answers) >= seen + count)

    def answers_but(self, *statuses: int) -> list[str]:
        """What the answers of other statuses say."""
        return [answer.text for answer in self.answers if answer.status_code not in statuses]


def facts(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs each time."""
    return {key: answer[key] for key in ("model", "image", "coverage", "instances")}


def test_answers_are_those_of_the_plain_server(deployed: Ray) -> None:
    registry = ModelRegistry([MODEL], threads=1)
    registry.load()
    app = create_app(ServerSettings(models=(MODEL,)), registry)
    expected = app.test_client().post("/v1/segment", data=EXAMPLE.read_bytes(), headers=JPEG)
    assert facts(post().json()) == facts(expected.get_json())

    drawn = requests.post(
        f"{URL}/v1/segment",
        data=EXAMPLE.read_bytes(),
        headers={**JPEG, "Accept": "image/png"},
        timeout=60,
    )
    plain = app.test_client().post(
        "/v1/segment", data=EXAMPLE.read_bytes(), headers={**JPEG, "Accept": "image/png"}
    )
    assert drawn.content == plain.data
    assert drawn.headers["X-Request-ID"].count(",") == 0


@pytest.mark.parametrize(
    ("path", "data", "status", "code"),
    [
        ("/v1/segment", b"no photo", 422, "image_undecodable"),
        ("/v1/segment?min_score=2", None, 422, "bad_parameter"),
        ("/v1/segment?classes=baloon", None, 422, "unknown_class"),
        ("/v1/models/ballon-fast/segment", None, 404, "unknown_model"),
        ("/v1/jobs", None, 404, "jobs_off"),
    ],
)
def test_problems_are_those_of_the_plain_server(
    deployed: Ray, path: str, data: bytes | None, status: int, code: str
) -> None:
    answer = post(path, data)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_lost_replicas_lose_no_request(deployed: Ray, dice: random.Random) -> None:
    with Load() as load:
        load.wait_for_answers(4)
        for deployment in (MODEL, "http"):
            time.sleep(dice.uniform(0, 1))
            dice.choice(deployed.replicas(deployment)).send_signal(signal.SIGKILL)
            load.wait_for_answers(8)
    assert load.answers_but(200) == []
    wait_for(lambda: len(deployed.replicas(MODEL)) == len(deployed.replicas("http")) == 2)


def test_a_bundle_changes_under_load(deployed: Ray, tmp_path: Path) -> None:
    bundle = tmp_path / "changed"
    shutil.copytree(shipped_bundles()[MODEL], bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "version": "changed"}))
    with Load() as load:
        load.wait_for_answers(4)
        deployed.deploy(str(bundle))
        wait_for(lambda: {post().json()["model"]["version"] for _ in range(6)} == {"changed"})
    assert load.answers_but(200) == []


def test_a_broken_bundle_is_refused(deployed: Ray, tmp_path: Path) -> None:
    shutil.copytree(shipped_bundles()[MODEL], tmp_path / "broken")
    (tmp_path / "broken" / "model.onnx").write_bytes(b"half a model")
    deployed.deploy(str(tmp_path / "broken"))
    assert {post().status_code for _ in range(6)} == {200}


def test_a_full_cluster_refuses(deployed: Ray) -> None:
    deployed.deploy(MODEL, concurrency=1, queue_size=1, threads=4)
    with Load(clients=24) as load:
        load.wait_for_answers(100)
    assert load.answers_but(200, 503) == []
    refusals = [answer for answer in load.answers if answer.status_code == 503]
    assert 0 < len(refusals) < len(load.answers)
    for answer in refusals:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["code"] == "server_full"
    assert post().status_code == 200


def test_a_lost_node_loses_no_request(deployed: Ray, dice: random.Random) -> None:
    deployed.deploy(MODEL)
    with Load() as load:
        load.wait_for_answers(4)
        time.sleep(dice.uniform(0, 1))
        deployed.kill_worker()
        load.wait_for_answers(20)
    assert load.answers_but(200) == []
