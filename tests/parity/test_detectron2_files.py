"""Models that Detectron2 trained give the answers that it gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from detectron2_answers import Answer, answer_of, compare, manifest_of
from maskserve.export.graph import write_graph
from maskserve.models import Detectron2Model, InferenceNetwork, TorchEngine, load_detectron2
from maskserve.runtime.engine import Engine
from maskserve.runtime.image_io import read_image
from maskserve.runtime.openvino_engine import OpenVinoEngine

MODELS = {"r50_fpn_3class": "model_final.pth", "r101_fpn_1class_agnostic": "model_final.pkl"}
INSTANCES = {"r50_fpn_3class": 29, "r101_fpn_1class_agnostic": 24}
MIN_SCORE = 0.3


@dataclass(frozen=True)
class _Reference:
    folder: Path
    loaded: Detectron2Model


@pytest.fixture(scope="module", params=MODELS)
def reference(request: pytest.FixtureRequest, references: Path) -> _Reference:
    folder = references / request.param
    loaded = load_detectron2(folder / "config.yaml", folder / MODELS[request.param])
    return _Reference(folder, loaded)


def run_in_torch(loaded: Detectron2Model, folder: Path) -> Engine:
    limit = loaded.postprocess.max_instances
    return TorchEngine(InferenceNetwork(loaded.model, max_instances=limit))


def run_exported(loaded: Detectron2Model, folder: Path) -> Engine:
    graph = folder / "model.onnx"
    write_graph(loaded.model, graph, max_instances=100, precision="f32")
    return OpenVinoEngine(graph.read_bytes(), precision="f32")


@pytest.mark.parametrize("run", [run_in_torch, run_exported])
def test_answers_are_those_of_detectron2(
    run: Callable[[Detectron2Model, Path], Engine], reference: _Reference, tmp_path: Path
) -> None:
    loaded = reference.loaded
    engine = run(loaded, tmp_path)
    manifest = manifest_of(loaded.preprocess, loaded.postprocess, loaded.classes)
    assert manifest.postprocess.min_score == MIN_SCORE
    compared = 0
    for index in range(5):
        with np.load(reference.folder / f"expected{index}.npz") as values:
            expected = Answer(
                values["boxes_xyxy"], values["scores"], values["classes"], values["masks"]
            )
        photo = read_image(reference.folder / f"image{index}.png")
        found = answer_of(engine, manifest, photo, min_score=MIN_SCORE)
        compared += compare(expected, found, min_score=MIN_SCORE).instances
    assert compared == INSTANCES[reference.folder.name]
