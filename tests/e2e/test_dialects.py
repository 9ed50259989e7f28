"""The shipped model behind a real server, asked by other people's clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from huggingface_hub import InferenceClient

from maskserve.client import Client
from maskserve.core.brush_rle import encode_brush
from maskserve.core.masks import Mask, decode_rle
from maskserve.core.predictor import Image
from maskserve.core.types import Instances
from maskserve.datasets import load_dataset
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import encode_image

READY_S = 120
DOCUMENTATION = Path(__file__).parents[2] / "docs"
CONFIG = """<View><Image name="photo" value="$image"/><BrushLabels name="mask" toName="photo">
<Label value="Balloon"/></BrushLabels></View>"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Label Studio's local files."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def host(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "log"
    environment = os.environ | {"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(files)}
    command = [sys.executable, "-m", "maskserve", "serve", "--model", "balloon", "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment, stderr=stderr)
    try:
        yield _wait_until_ready(process, log)
    finally:
        process.terminate()
        assert process.wait(60) == 0


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        address = re.search(r"http://(127\.0\.0\.1:\d+)", log.read_text())
        if address:
            with Client(f"http://{address[1]}") as client:
                if client.ready():
                    return address[1]
        time.sleep(0.1)
    raise AssertionError(f"not ready after {READY_S} s: {log.read_text()}")


@pytest.fixture(scope="module")
def scene() -> tuple[Image, list[Mask]]:
    photo, masks = render_balloons(size=(480, 640), count=4, seed=1)
    return photo, list(masks)


@pytest.fixture(scope="module")
def found(host: str, scene: tuple[Image, list[Mask]]) -> Instances:
    """What our own client is told, which the others must be told as well."""
    with Client(f"http://{host}") as client:
        instances = client.segment(scene[0])
    assert len(instances) >= 3
    return instances


def test_triton(host: str, scene: tuple[Image, list[Mask]], found: Instances) -> None:
    tensor = triton.InferInput("image", list(scene[0].shape), "UINT8")
    tensor.set_data_from_numpy(scene[0])
    with triton.InferenceServerClient(host) as client:
        result = client.infer("balloon", [tensor])
    masks = [decode_rle(json.loads(rle)) for rle in result.as_numpy("masks_rle")]
    assert np.array_equal(masks, found.masks)
    assert result.as_numpy("scores") == pytest.approx(found.scores, abs=1e-4)
    assert result.as_numpy("coverage")[0] == found.coverage().masked_px


def test_hugging_face(host: str, scene: tuple[Image, list[Mask]], found: Instances) -> None:
    client = InferenceClient(model=f"http://{host}/hf/models/balloon")
    segments = client.image_segmentation(encode_image(scene[0], "image/png"))
    assert {segment.label for segment in segments} == {"balloon"}
    masks = [np.asarray(segment.mask) == 255 for segment in segments]
    assert np.array_equal(masks, found.masks)


def test_loop_of_label_studio(
    host: str, scene: tuple[Image, list[Mask]], found: Instances, files: Path
) -> None:
    """Labelled, exported, read; predicted, accepted, exported and read again."""
    photo, masks = scene
    folder = files / "balloons"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode_image(photo, "image/png"))
    reference = "/data/local-files/?d=balloons/a.png"
    labelled = [_region(mask) for mask in masks]
    assert np.array_equal(_read_back(folder, reference, labelled), masks)

    body = {
        "tasks": [{"id": 1, "data": {"image": reference}}],
        "label_config": CONFIG,
        "project": "1.1",
        "params": {},
    }
    answer = requests.post(f"http://{host}/predict", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (prediction,) = answer.json()["results"]
    assert prediction["model_version"].startswith("balloon ")
    assert np.array_equal(_read_back(folder, reference, prediction["result"]), found.masks)


@pytest.mark.parametrize("page", ["client.md", "dialects.md"])
def test_examples_of_the_documentation(
    host: str,
    scene: tuple[Image, list[Mask]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: str,
) -> None:
    (tmp_path / "photo.jpg").write_bytes(encode_image(scene[0], "image/jpeg"))
    monkeypatch.chdir(tmp_path)
    text = (DOCUMENTATION / page).read_text(encoding="utf-8").replace("127.0.0.1:8080", host)
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page, "exec"), {})
        assert capsys.readouterr().out, f"an example says nothing:\n{example}"


def _region(mask: Mask) -> dict[str, object]:
    height, width = mask.shape
    return {
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["Balloon"]},
    }


def _read_back(folder: Path, reference: str, regions: object) -> list[Mask]:
    """The masks of an export that holds these regions of one photo."""
    exported = [{"id": 1, "data": {"image": reference}, "annotations": [{"result": regions}]}]
    (folder / "project-1.json").write_text(json.dumps(exported), encoding="utf-8")
    (sample,) = load_dataset(folder).samples
    return [annotation.mask(sample.image_size) for annotation in sample.annotations]
