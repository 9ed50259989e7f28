"""A model of Detectron2 by two commands: imported, and answering photos as Detectron2 did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detectron2_answers import MASK_IOU, SCORE, mask_iou
from maskserve.api import ServerSettings, create_app
from maskserve.core.masks import decode_rle
from maskserve.runtime.registry import ModelRegistry

REPOSITORY = Path(__file__).parents[2]
CLASSES = ("ellipse", "rectangle", "triangle")


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = REPOSITORY.parent / "shared" / "detectron2" / "r50_fpn_3class"
    if not folder.is_dir():
        pytest.skip("there is no folder ../shared/detectron2 beside the checkout")
    return folder


@pytest.fixture(scope="module")
def bundle(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "shapes.zip"
    options = {
        "--config": reference / "config.yaml",
        "--weights": reference / "model_final.pth",
        "--classes": ",".join(CLASSES),
        "--photo": reference / "image0.png",
        "--out": out,
    }
    words = [str(word) for option in options.items() for word in option]
    done = subprocess.run(
        [sys.executable, "-m", "maskserve", "import", "detectron2", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "“shapes”" in done.stdout
    assert "agree on" in done.stdout
    return out


def test_the_server_answers_as_detectron2_did(bundle: Path, reference: Path) -> None:
    registry = ModelRegistry([bundle])
    registry.load()
    app = create_app(ServerSettings(models=(str(bundle),)), registry)
    with np.load(reference / "expected0.npz") as values:
        expected = {key: values[key] for key in values.files}

    answer = app.test_client().post(
        "/v1/segment?min_score=0.301",
        data=(reference / "image0.png").read_bytes(),
        content_type="image/png",
    )

    assert answer.status_code == 200
    found = answer.get_json()["instances"]
    certain = expected["scores"] >= 0.301 + SCORE
    assert certain.sum() > 3
    assert len(found) - certain.sum() in (0, 1)
    for index in np.flatnonzero(certain):
        best = max(found, key=lambda f: mask_iou(decode_rle(f["mask"]), expected["masks"][index]))
        assert best["class"] == CLASSES[expected["classes"][index]]
        assert best["score"] == pytest.approx(expected["scores"][index], abs=SCORE)
        assert mask_iou(decode_rle(best["mask"]), expected["masks"][index]) >= MASK_IOU
