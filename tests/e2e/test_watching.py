"""Logs, metrics, keys and traces of a server with several workers, as an operator sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs POSIX")

TESTS = Path(__file__).parents[1]
WAIT_S = 60
KEY = "a-key-that-nobody-guesses"

# What any of its processes does beyond answering is written down.
PROGRAM = """
import json, os, sys

calls = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
watched = ("socket.connect", "socket.sendto", "urllib.Request", "pickle.find_class", "os.system",
           "subprocess.Popen", "os.exec", "os.posix_spawn")
sys.addaudithook(lambda name, _: os.write(calls, f"{name}\\n".encode()) if name in watched else 0)

sys.path.insert(0, sys.argv[1])
from api_fakes import make_registry
from maskserve.api.server import serve
from maskserve.api.settings import ServerSettings

serve(ServerSettings(**json.loads(sys.argv[2])), make_registry())
"""


@dataclass
class Server:
    process: subprocess.Popen[str]
    folder: Path
    session: requests.Session = field(default_factory=requests.Session)
    url: str = ""

    def log(self) -> list[dict[str, Any]]:
        """Every line, which must be JSON; the last one may still be written."""
        text = (self.folder / "log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().split()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        for _ in range(WAIT_S * 20):
            if condition():
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        pytest.fail(f"the condition did not come true; the log: {self.log()}")

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def metrics(self) -> dict[str, float]:
        """Values by name and labels, as ``name{a=b,c=d}``, from a connection of its own."""
        answer = requests.get(f"{self.url}/metrics", timeout=WAIT_S, headers=self.session.headers)
        assert answer.status_code == 200, answer.text
        return {
            f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value
            for family in text_string_to_metric_families(answer.text)
            for s in family.samples
        }

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def end(self) -> None:
        """Whatever state a test left it in, and without leaving its folder behind."""
        self.session.close()
        self.process.terminate()
        try:
            self.process.wait(WAIT_S)
        finally:
            self.process.kill()


def start(folder: Path, *, environ: dict[str, str] | None = None, **settings: Any) -> Server:
    """A server that is ready."""
    values = json.dumps({"port": 0, "drain_s": 0, "workers": 2, **settings})
    command = [sys.executable, "-c", PROGRAM, str(TESTS), values, str(folder / "calls")]
    with (folder / "log").open("w") as stderr:
        process = subprocess.Popen(
            command, stderr=stderr, text=True, env=os.environ | (environ or {})
        )
    server = Server(process, folder)
    server.wait_for(lambda: any("listening" in line["message"] for line in server.log()))
    server.url = server.log()[0]["message"].removeprefix("listening on ")
    server.wait_for(lambda: requests.get(f"{server.url}/readyz", timeout=WAIT_S).ok)
    return server


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Server]:
    server = start(tmp_path, threads=20, queue_size=15)
    yield server
    server.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that asks for the keys in the file ``keys`` of its folder."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys").write_text(f"alice:{KEY}")
    server = start(folder, api_keys_file=str(folder / "keys"))
    server.session.headers["X-API-Key"] = KEY
    yield server
    server.end()


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode_image(render_balloons(size=(96, 128), count=2, seed=0)[0], "image/jpeg")


def access_lines(server: Server) -> list[dict[str, Any]]:
    return [line for line in server.log() if line["logger"] == "maskserve.access"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_several_workers_count_every_request_exactly(open_server: Server, jpeg: bytes) -> None:
    server = open_server
    answered = {200: 0, 422: 0, 503: 0}
    lock = threading.Lock()
    segment = "maskserve_requests_total{route=/v1/segment,status=%d}"
    stage = "maskserve_stage_seconds_count{model=balloon,stage=%s}"

    def send(number: int) -> None:
        body = b"not a photo" if number % 5 == 0 else jpeg
        status = requests.post(f"{server.url}/v1/segment", data=body, timeout=WAIT_S).status_code
        with lock:
            answered[status] += 1

    seen = [0.0]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(send, number) for number in range(100)]
        while not all(future.done() for future in done):
            seen.append(server.metrics().get(segment % 200, 0.0))
        for future in done:
            future.result()
    assert seen == sorted(seen)
    assert sum(answered.values()) == 100
    assert answered[422] == 20

    def check() -> None:
        found = server.metrics()
        for status, count in answered.items():
            assert found.get(segment % status, 0) == count
        for name in ("decode", "queue", "infer", "paste", "draw", "total"):
            assert found[stage % name] == answered[200]
        assert found["maskserve_problems_total{code=image_undecodable}"] == answered[422]
        assert found.get("maskserve_problems_total{code=server_full}", 0) == answered[503]
        assert found["maskserve_request_seconds_count{route=/v1/segment}"] == 100
        assert found["maskserve_requests_in_flight{}"] == 1  # this one
        assert found["maskserve_queue_depth{}"] == 0
        assert len(resident(found)) == 2

    def resident(found: dict[str, float]) -> list[str]:
        return [name for name in found if name.startswith("process_resident_memory_bytes")]

    for _ in range(20):  # either worker answers some
        check()

    # A worker that dies takes nothing of what it had counted along.
    killed, survivor = server.workers()
    os.kill(killed, signal.SIGKILL)
    server.wait_for(lambda: killed not in server.workers())
    server.wait_for(lambda: len(resident(server.metrics())) == 2)
    for _ in range(10):
        check()

    maps = Path(f"/proc/{survivor}/maps").read_text()
    folders = {Path(path).parent for path in re.findall(r"/\S+maskserve-metrics-\S+\.db", maps)}
    assert len(folders) == 1
    (folder,) = folders
    assert folder.stat().st_mode & 0o077 == 0
    assert server.stop() == 0
    assert not folder.exists()
    assert server.calls() == []


def test_a_request_can_be_followed_through_the_log(server: Server, jpeg: bytes) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {
        "Authorization": f"Bearer {KEY}",
        "X-Request-Id": "of-the-client",
        "traceparent": f"00-{trace}-b7ad6b7169203331-01",
    }
    url = f"{server.url}/v1/segment"
    assert requests.post(url, data=jpeg, headers=headers, timeout=WAIT_S).status_code == 200
    assert requests.post(url, data=jpeg, timeout=WAIT_S).status_code == 401
    assert requests.post(url, data=b"x", auth=("any", KEY), timeout=WAIT_S).status_code == 422
    good, stranger, bad = access_lines(server)[-3:]

    assert good["request_id"] == "of-the-client"
    assert good["trace_id"] == trace
    assert (good["key"], good["model"], good["photos"]) == ("alice", "balloon", 1)
    assert set(good["stages_ms"]) == {"decode", "queue", "infer", "paste", "draw", "total"}
    assert 0 < good["stages_ms"]["total"] <= good["ms"]
    assert (stranger["status"], stranger["code"]) == (401, "unauthorized")
    assert "key" not in stranger
    assert (bad["status"], bad["code"], bad["key"]) == (422, "image_undecodable", "alice")
    assert KEY not in (server.folder / "log").read_text()


def test_what_is_no_http_is_a_problem_too(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    requests_and_statuses = (
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
        (b'GET / HTTP/1.1\r\n"}\x1b[31m\n: x\r\n\r\n', 400, "bad_request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "request_uri_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n", 431, None),
    )
    for sent, status, code in requests_and_statuses:
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
            connection.sendall(sent)
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert "Content-Type: application/problem+json" in head
        assert "Content-Security-Policy: default-src 'none'" in head
        problem = json.loads(body)
        assert problem["status"] == status
        assert code in (problem["code"], None)
        line = next(x for x in access_lines(server) if x["request_id"] in problem["instance"])
        assert (line["status"], line["code"], line["remote"]) == (status, problem["code"], host)
    found = server.metrics()
    assert found["maskserve_problems_total{code=bad_request}"] == 2
    assert found["maskserve_requests_total{route=unknown,status=431}"] == 1
    assert [x["logger"] for x in server.log()].count("gunicorn.error") == 4
    assert "\x1b" not in (server.folder / "log").read_text()


def test_a_refused_upload_is_told_so_and_not_reset(server: Server) -> None:
    for _ in range(5):
        answer = requests.post(f"{server.url}/v1/segment", data=bytes(8 * 2**20), timeout=WAIT_S)
        assert answer.status_code == 401


def test_a_client_is_no_proxy(server: Server) -> None:
    """gunicorn alone would believe these of anybody on the same machine."""
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "SCRIPT-NAME": "/x"}
    url = f"{server.url}/openapi"
    answer = requests.get(url, headers=headers, allow_redirects=False, timeout=WAIT_S)
    assert answer.headers["Location"] == f"{server.url}/openapi/"
    assert access_lines(server)[-1]["remote"] == "127.0.0.1"


def test_hup_takes_new_keys_and_keeps_the_old_ones_if_the_file_is_broken(server: Server) -> None:
    file = server.folder / "keys"

    def statuses(key: str) -> set[int]:
        headers = {"X-API-Key": key}
        return {
            requests.get(f"{server.url}/v1/models", headers=headers, timeout=WAIT_S).status_code
            for _ in range(10)
        }

    assert statuses(KEY) == {200}
    file.write_text(f"bob:{KEY}-of-bob")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: statuses(f"{KEY}-of-bob") == {200} and statuses(KEY) == {401})
    file.write_text("no key")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: sum("stay as they were" in x["message"] for x in server.log()) == 2)
    assert statuses(f"{KEY}-of-bob") == {200}

    file.write_text(f"alice:{KEY}")  # as the other tests expect it
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: statuses(KEY) == {200})


def test_nobody_is_called_unless_it_was_asked_for(server: Server, jpeg: bytes) -> None:
    """Neither while it starts and reloads, nor for photos, keys, metrics and traces."""
    headers = {"X-API-Key": KEY, "Content-Type": "image/jpeg"}
    assert requests.post(f"{server.url}/v1/segment", data=jpeg, headers=headers, timeout=WAIT_S).ok
    assert server.calls() == []


class Receiver(ThreadingHTTPServer):
    """Takes what an exporter sends by OTLP over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture
def traced_server(tmp_path: Path, receiver: Receiver) -> Iterator[Server]:
    endpoint = f"http://127.0.0.1:{receiver.server_port}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "balloons"}
    server = start(tmp_path, environ=environ)
    yield server
    server.end()


def test_traces_go_where_they_are_asked_for(
    traced_server: Server, receiver: Receiver, jpeg: bytes
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra “otel”")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415
        ExportTraceServiceRequest,
    )

    server = traced_server
    url = f"{server.url}/v1/segment?include=image"
    for _ in range(4):
        assert requests.post(url, data=jpeg, timeout=WAIT_S).status_code == 200
    traced = {line["trace_id"] for line in access_lines(server) if line["path"] == "/v1/segment"}
    assert len(traced) == 4
    assert server.stop() == 0  # which sends what is left
    assert set(server.calls()) == {"socket.connect"}

    exported = [ExportTraceServiceRequest.FromString(body) for body in receiver.bodies]
    resources = [spans for export in exported for spans in export.resource_spans]
    names = {
        attribute.value.string_value
        for spans in resources
        for attribute in spans.resource.attributes
        if attribute.key == "service.name"
    }
    assert names == {"balloons"}
    spans = [s for r in resources for scope in r.scope_spans for s in scope.spans]
    roots = [span for span in spans if not span.parent_span_id]
    assert [span.name for span in roots] == ["POST /v1/segment"] * 4
    assert {span.trace_id.hex() for span in roots} == traced
    for root in roots:
        children = [span for span in spans if span.parent_span_id == root.span_id]
        assert [span.name for span in children] == ["queue", "decode", "infer", "paste", "draw"]
        for before, after in pairwise(children):
            assert before.end_time_unix_nano <= after.start_time_unix_nano + 1_000_000
        for span in children:
            assert span.end_time_unix_nano <= root.end_time_unix_nano + 1_000_000
