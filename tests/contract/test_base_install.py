"""What holds in a process of its own: serving needs no torch, and nothing phones home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Run with: the folder of a bundle. Prints what happened as JSON.
SERVE = """
import json, os, sys

sockets = []
sys.addaudithook(
    lambda name, _: sockets.append(name)
    if name.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"))
    or name in ("os.fork", "subprocess.Popen", "os.posix_spawn")
    else None
)
for name in ("lightning", "matplotlib", "onnx", "safetensors", "torch", "torchvision"):
    sys.modules[name] = None

from io import BytesIO
from PIL import Image
import maskserve
from maskserve.api import ServerSettings, create_app
from maskserve.runtime.registry import ModelRegistry

registry = ModelRegistry([sys.argv[1]])
registry.load()
assert registry.ready, registry.failures
photo = BytesIO()
Image.new("RGB", (80, 60)).save(photo, "PNG")
app = create_app(ServerSettings(models=(sys.argv[1],)), registry)
answer = app.test_client().post("/v1/segment", data=photo.getvalue(), content_type="image/png")
descriptors = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")
               if os.path.islink(entry.path)] if os.path.isdir("/proc/self/fd") else []
print(json.dumps({
    "status": answer.status_code,
    "masked_px": answer.get_json()["coverage"]["masked_px"],
    "sockets": sockets + [name for name in descriptors if name.startswith("socket:")],
    "openvino": "openvino" in sys.modules,
    "telemetry": sys.modules.get("openvino_telemetry") is not None,
}))
"""

CLI = """
import sys
for name in ("lightning", "matplotlib", "onnx", "safetensors", "torch", "torchvision"):
    sys.modules[name] = None
from maskserve.cli.main import app
app(["--help"], standalone_mode=False)
heavy = {"PIL", "cv2", "flask", "openvino"} & set(sys.modules)
assert not heavy, heavy
"""


def run(code: str, *arguments: str, home: Path) -> str:
    # Without the variables of this process: some of them switch telemetry off, such as CI.
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def served(tiny_bundle: Path, home: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(SERVE, str(tiny_bundle), home=home))
    return answer


def test_a_photo_is_answered_without_torch_and_without_a_call_to_anyone(
    served: dict[str, Any], home: Path
) -> None:
    assert served == {
        "status": 200,
        "masked_px": 1920,
        "sockets": [],
        "openvino": True,
        "telemetry": False,
    }
    # OpenVINO's telemetry would have left an id of this user here.
    assert list(home.iterdir()) == []


def test_help_needs_neither_torch_nor_anything_else_that_is_slow(home: Path) -> None:
    run(CLI, home=home)


def test_importing_the_package_loads_no_framework(home: Path) -> None:
    code = "import maskserve, sys; assert not {'numpy', 'cv2', 'openvino'} & set(sys.modules)"
    run(code, home=home)
