"""A real nginx with the configuration of deploy/nginx in front of a real server."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api_server import WAIT_S, ServerProcess
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
FOLDER = Path(__file__).parents[2] / "deploy" / "nginx"
ANOTHER_CLIENT = "127.0.0.2"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

MAIN = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/pid;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/maskserve*.conf;
}}
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def check_problem(self, status: int, code: str, *words: str) -> None:
        assert self.status == status, self.body
        assert self.headers["Content-Type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert set(problem) == {"type", "title", "status", "detail", "code", "instance"}
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["type"] == f"urn:maskserve:problem:{code}"
        assert problem["instance"] == f"urn:maskserve:request:{self.headers['X-Request-Id']}"
        assert all(word in problem["detail"] for word in words), problem["detail"]


class Proxy:
    """nginx that runs in a folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def ask(
        self,
        method: str = "GET",
        path: str = "/readyz",
        *,
        body: bytes | None = None,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=WAIT_S, source_address=(source, 0)
        )
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def line(self, request_id: str) -> dict[str, Any]:
        """Of the log; it may come a little after the answer."""
        for _ in range(WAIT_S * 50):
            found = [line for line in self.log() if line["request_id"] == request_id]
            if found:
                return found[0]
            time.sleep(0.02)
        pytest.fail(f"{request_id} is not in nginx's log")

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def replaced(text: str, old: str, new: str) -> str:
    """Replace whole lines, of which there must be one."""
    text, count = re.subn(rf"^( *){re.escape(old)}$", rf"\g<1>{new}", text, flags=re.MULTILINE)
    assert count == 1, f"{count} lines “{old}”"
    return text


@contextmanager
def nginx(
    folder: Path,
    *upstream: str,
    site: str | None = None,
    port: int | None = None,
    rate: str = "50r/s",
) -> Iterator[Proxy]:
    """The committed configuration, but for ports, the log's place and a shorter patience."""
    folder.mkdir()
    port = port or free_port()
    site = site or replaced(
        (FOLDER / "maskserve.conf").read_text(), "listen 80;", f"listen 127.0.0.1:{port};"
    )
    site = replaced(
        site,
        "access_log /var/log/nginx/access.log maskserve;",
        f"access_log {folder}/access.log maskserve;",
    )
    site = replaced(site, "client_body_timeout 30s;", "client_body_timeout 1s;")
    zone = "limit_req_zone $binary_remote_addr zone=maskserve_a_second:10m rate="
    site = replaced(site, f"{zone}50r/s;", f"{zone}{rate};")
    servers = " ".join(f"server {address};" for address in upstream)
    where = replaced(
        (FOLDER / "maskserve-upstream.conf").read_text(), "server 127.0.0.1:8080;", servers
    )
    (folder / "maskserve.conf").write_text(site)
    (folder / "maskserve-upstream.conf").write_text(where)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    command = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for _ in range(WAIT_S * 50):
            assert process.poll() is None, (folder / "output").read_text()
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield Proxy(folder, port)
    finally:
        process.terminate()
        process.wait(WAIT_S)


def address(server: ServerProcess) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode_image(render_balloons(size=(96, 128), count=2, seed=0)[0], "image/jpeg")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"queue_size": 1, "deadline_s": 2, "jobs_dir": str(folder / "jobs")}
    with ServerProcess(folder, trusted_proxies=1, **settings) as process:
        process.wait_until_ready()
        yield process


@pytest.fixture(scope="module")
def proxy(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with nginx(tmp_path_factory.mktemp("nginx") / "nginx", address(server)) as proxy:
        yield proxy


def test_both_logs_tell_the_same_of_a_request(
    server: ServerProcess, proxy: Proxy, jpeg: bytes
) -> None:
    sent = {"a-good.id_1": True, "not good; at all": False, "x" * 65: False}
    for given, is_good in sent.items():
        answer = proxy.ask(
            "POST",
            "/v1/segment",
            body=jpeg,
            source=ANOTHER_CLIENT,
            X_Request_Id=given,
            X_Forwarded_For="203.0.113.7",
        )
        assert answer.status == 200
        used = answer.headers["X-Request-Id"]
        assert (used == given) == is_good
        assert json.loads(answer.body)["request_id"] == used
        (line,) = [line for line in server.lines("maskserve.access") if line["request_id"] == used]
        assert line["remote"] == ANOTHER_CLIENT
        seen = proxy.line(used)
        assert (seen["remote"], seen["status"]) == (ANOTHER_CLIENT, 200)
        assert seen["upstream_status"] == "200"


def test_what_the_server_refuses_passes_untouched(
    server: ServerProcess, proxy: Proxy, jpeg: bytes
) -> None:
    server.running.unlink(missing_ok=True)
    server.hold.touch()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(proxy.ask, "POST", "/v1/segment", body=jpeg)
        server.wait_for(server.running.exists)
        others = [pool.submit(proxy.ask, "POST", "/v1/segment", body=jpeg) for _ in range(2)]
        full, late = sorted((other.result() for other in others), key=lambda found: found.status)
        server.hold.unlink()
        first.result()
    full.check_problem(503, "server_full")
    assert full.headers["Retry-After"] == "1"
    late.check_problem(504, "deadline_passed")
    proxy.ask("POST", "/v1/segment", body=b"no photo").check_problem(422, "image_undecodable")
    proxy.ask(path="/nothing").check_problem(404, "not_found")


def test_large_bodies_are_refused_by_the_server_and_larger_ones_by_nginx(
    server: ServerProcess, proxy: Proxy
) -> None:
    too_large = proxy.ask("POST", "/v1/segment", body=bytes(200_000))
    too_large.check_problem(413, "image_too_large", "Scale the photo down")
    before = len(server.lines("maskserve.access"))
    refused = proxy.ask("POST", "/v1/segment", body=bytes(29 * 2**20), X_Request_Id="large")
    refused.check_problem(413, "image_too_large", "the proxy")
    assert refused.headers["X-Request-Id"] == "large"
    assert len(server.lines("maskserve.access")) == before


def test_jobs_may_be_larger(proxy: Proxy, jpeg: bytes) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as photos:
        photos.writestr("a.jpg", jpeg)
        photos.writestr("b.jpg", os.urandom(30 * 2**20))
    answer = proxy.ask("POST", "/v1/jobs", body=archive.getvalue(), Content_Type="application/zip")
    assert answer.status == 202, answer.body
    assert json.loads(answer.body)["photos"]["total"] == 2
    location = answer.headers["Location"]
    for _ in range(WAIT_S * 20):
        job = json.loads(proxy.ask(path=location).body)
        if job["state"] == "done":
            break
        time.sleep(0.05)
    assert job["photos"] == {"done": 1, "failed": 1, "total": 2}


def test_the_server_never_hears_of_a_slow_client(server: ServerProcess, proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S) as client:
        client.sendall(
            b"POST /v1/segment HTTP/1.1\r\nHost: h\r\nX-Request-Id: slow\r\n"
            b"Content-Length: 1000\r\n\r\nabc"
        )
        assert client.recv(1000) == b""
    line = proxy.line("slow")
    assert (line["status"], line["upstream"]) == (408, "")
    assert "slow" not in [line["request_id"] for line in server.lines("maskserve.access")]


def test_metrics_are_not_for_everybody(proxy: Proxy) -> None:
    proxy.ask(path="/metrics").check_problem(404, "not_found", "the proxy")


def test_a_flood_from_one_address_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    with (
        nginx(tmp_path / "nginx", address(server), rate="1r/m") as proxy,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: proxy.ask(path="/healthz"), range(150)))
        assert proxy.ask(path="/healthz", source=ANOTHER_CLIENT).status == 200
    refused = [answer for answer in answers if answer.status != 200]
    assert 40 < len(refused) < 50  # a burst of 100 is allowed
    refused[0].check_problem(429, "too_many_requests", "the proxy")
    assert refused[0].headers["Retry-After"] == "1"


def test_a_reload_and_a_stop_lose_no_request_that_was_accepted(tmp_path: Path, jpeg: bytes) -> None:
    with ServerProcess(tmp_path, trusted_proxies=1) as server:
        server.wait_until_ready()
        with nginx(tmp_path / "nginx", address(server)) as proxy, ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(proxy.ask, "POST", "/v1/segment", body=jpeg) for _ in range(40)]
            for _ in range(3):
                server.process.send_signal(signal.SIGHUP)
                time.sleep(0.05)
            assert [answer.result().status for answer in answers] == [200] * 40

            server.running.unlink()
            server.hold.touch()
            last = pool.submit(proxy.ask, "POST", "/v1/segment", body=jpeg)
            server.wait_for(server.running.exists)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for(lambda: proxy.ask().status == 503)  # draining, and still answering
            server.hold.unlink()
            assert last.result().status == 200
            assert server.process.wait(WAIT_S) == 0
            gone = proxy.ask("POST", "/v1/segment", body=jpeg, X_Request_Id="gone")
            gone.check_problem(502, "bad_gateway", "the proxy")
            assert gone.headers["Retry-After"] == "1"
            assert gone.headers["X-Request-Id"] == "gone"


class BrokenServer:
    """Takes whole requests and ends the connection without an answer."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                self.requests.append(client.recv(65536))


def test_only_what_reads_is_tried_at_another_server(
    server: ServerProcess, tmp_path: Path, jpeg: bytes
) -> None:
    broken = BrokenServer()
    before = len(server.lines("maskserve.access"))
    with broken.listener, nginx(tmp_path / "nginx", broken.address, address(server)) as proxy:
        posted = proxy.ask("POST", "/v1/segment", body=jpeg)
        if posted.status == 200:  # it was the good server's turn
            posted = proxy.ask("POST", "/v1/segment", body=jpeg)
        posted.check_problem(502, "bad_gateway")
        sent = len(server.lines("maskserve.access")) - before + len(broken.requests)
        assert sent == len(proxy.log())

    with nginx(tmp_path / "second", BrokenServer().address, address(server)) as proxy:
        assert [proxy.ask().status for _ in range(2)] == [200, 200]
        tried = [line["upstream"].count(",") + 1 for line in proxy.log()]
        assert max(tried) == 2


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_the_lines_for_tls_are_right(server: ServerProcess, tmp_path: Path) -> None:
    names = {name: tmp_path / f"{name}.pem" for name in ("fullchain", "privkey")}
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-out", str(names["fullchain"]), "-keyout", str(names["privkey"])]
    name = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make.split(), *name, *files], check=True, capture_output=True)
    site = (FOLDER / "maskserve.conf").read_text()
    site, _, second = site.partition("# With TLS:\n")
    site = re.sub(r"^    # (?=[a-z_]+ .*;$)", "    ", site, flags=re.MULTILINE)
    second = re.sub(r"^# ", "", second, flags=re.MULTILINE)
    port, plain = free_port(), free_port()
    for old, new in {
        "listen 80;": "",
        "server_name _;": "",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
    }.items():
        site = replaced(site, old, new)
    site = site.replace("/etc/letsencrypt/live/masks.example.org", str(tmp_path))
    second = replaced(second, "listen 80;", f"listen 127.0.0.1:{plain};")

    with nginx(tmp_path / "nginx", address(server), site=site + second, port=port):
        context = ssl.create_default_context(cafile=names["fullchain"])
        connection = http.client.HTTPSConnection("localhost", port, timeout=WAIT_S, context=context)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Strict-Transport-Security"]
        connection.close()
        redirect = Proxy(tmp_path / "nginx", plain).ask(path="/v1/models?a=b", Host="h.example.org")
        assert redirect.status == 308
        assert redirect.headers["Location"] == "https://h.example.org/v1/models?a=b"
