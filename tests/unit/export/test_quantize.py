from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from maskserve.core.errors import ExportError, ParameterError
from maskserve.datasets.balloon_photo import render_balloon_photo
from maskserve.export.quantize import Quantized, quantize_bundle
from maskserve.runtime.bundle import MODEL_NAME, find_bundle, read_bundle


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for seed in range(6):
        image, _ = render_balloon_photo(size=(384, 512), count=6, seed=seed)
        path = folder / f"{seed}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def twin(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quantized]:
    out = tmp_path_factory.mktemp("bundles") / "twin"
    return out, quantize_bundle(find_bundle("balloon-fast"), photos, out)


def test_it_finds_what_the_original_finds(twin: tuple[Path, Quantized]) -> None:
    agreement = twin[1].agreement
    assert agreement.photos == 2
    assert agreement.instances >= 3
    assert agreement.kept >= agreement.instances / 2
    assert agreement.mask_iou > 0.8


def test_integers_are_where_they_should_be(twin: tuple[Path, Quantized]) -> None:
    out, done = twin
    graph = onnx.load(out / MODEL_NAME).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    integer = [node for node in layers if dequantised.issuperset(node.input[:2])]
    assert (len(integer), len(layers) - len(integer)) == (done.layers, done.left)
    assert sum(node.op_type == "Gemm" for node in integer) == 2  # the box head's hidden layers
    assert not any(a.name == "group" and a.i > 1 for node in integer for a in node.attribute)
    upsampling = next(node for node in graph.node if node.op_type == "ConvTranspose")
    assert dequantised.isdisjoint(upsampling.input)  # the mask head


def test_the_manifest_tells_where_it_comes_from(twin: tuple[Path, Quantized]) -> None:
    original = read_bundle(find_bundle("balloon-fast")).manifest
    manifest = read_bundle(twin[0]).manifest
    assert manifest.name == "balloon-fast-int8"
    assert manifest.provenance.settings["int8"] == {"of": "balloon-fast", "photos": 4}
    assert manifest.metrics == {}  # measured anew or not at all
    assert original.metrics
    assert manifest.postprocess == original.postprocess
    assert "onnxruntime" in manifest.tool_versions


def test_too_few_photos(photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="3 photos are too few: at least 4"):
        quantize_bundle(find_bundle("balloon-fast"), photos[:3], tmp_path / "out")


def test_photos_that_show_nothing(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((96, 128, 3), 128, np.uint8))
    with pytest.raises(ParameterError, match="finds nothing"):
        quantize_bundle(find_bundle("balloon-fast"), [grey] * 4, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_bundle_is_not_replaced(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(ExportError, match="not a bundle"):
        quantize_bundle(find_bundle("balloon-fast"), photos, tmp_path)
