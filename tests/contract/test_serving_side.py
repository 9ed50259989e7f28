"""What the code that serves does not do: fetch what a request names, and unpickle."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import maskserve

ROOT = Path(maskserve.__file__).parent
SERVING = ("api", "core", "runtime")
FORBIDDEN = (
    "aiohttp",
    "ftplib",
    "http.client",
    "httpx",
    "joblib",
    "marshal",
    "pickle",
    "requests",
    "shelve",
    "socketserver",
    "subprocess",
    "telnetlib",
    "urllib.request",
    "urllib3",
    "xmlrpc",
    "yaml",
)
EXCEPTIONS = {
    # Fetches photos of tasks, but only from the one Label Studio that the settings name.
    "api/dialects/task_photos.py": {"urllib3"},
    # Measures a process of its own, for the benchmark.
    "runtime/memory.py": {"subprocess"},
}

# Requests that would make a careless server fetch or unpickle. The fakes need no bundle.
PROGRAM = """
import json, pickle, sys
from base64 import b64encode

seen = []
sys.addaudithook(
    lambda name, _: seen.append(name)
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request",
                "pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "ftplib.connect")
    else None
)
sys.path.insert(0, sys.argv[1])
from api_fakes import make_registry
from maskserve.api import ServerSettings, create_app

class Evil:
    def __reduce__(self):
        return print, ("unpickled",)

url = "http://127.0.0.1:9/photo.jpg"
evil = pickle.dumps(Evil())
config = '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"/></View>'
client = create_app(ServerSettings(), make_registry()).test_client()
tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [url]}
statuses = [client.post(path, **body).status_code for path, body in [
    ("/v1/segment", {"json": {"image": url}}),
    ("/v1/segment", {"json": {"image": b64encode(url.encode()).decode()}}),
    ("/v1/segment", {"data": url.encode()}),
    ("/v1/segment", {"data": evil}),
    ("/v1/segment", {"data": b"\\x93NUMPY" + evil}),
    ("/v1/segment?image=" + url, {"data": b""}),
    ("/v1/segment", {"data": {"image": url}}),
    ("/v2/models/balloon/infer", {"json": {"inputs": [tensor]}}),
    ("/hf/image-segmentation", {"json": {"inputs": url}}),
    ("/predict", {"json": {"tasks": [{"data": {"image": url}}], "label_config": config}}),
    ("/setup", {"json": {"project": "1", "schema": config, "hostname": url, "access_token": "x"}}),
]]
for name in ("X-Forwarded-For", "Referer", "Origin", "traceparent"):
    client.get("/v1/models", headers={name: url})
print(json.dumps({"seen": seen, "statuses": statuses}))
"""


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources() -> list[str]:
    found = (path for part in SERVING for path in (ROOT / part).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("source", sources())
def test_nothing_that_fetches_or_unpickles_is_imported(source: str) -> None:
    found = {
        forbidden
        for name in imported(ROOT / source)
        for forbidden in FORBIDDEN
        if name == forbidden or name.startswith(forbidden + ".")
    }
    assert found == EXCEPTIONS.get(source, set())


@pytest.mark.parametrize("source", sources())
def test_no_text_becomes_code(source: str) -> None:
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}


def test_requests_that_name_addresses_make_the_server_ask_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT.parents[1] / "tests")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    happened = json.loads(done.stdout)
    assert happened["seen"] == []
    assert [s for s in happened["statuses"] if not 400 <= s < 500] == [200]  # /setup
