"""Fixtures that the tests of more than one package use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from maskserve.core import Manifest, Postprocess, Preprocess, Provenance

# Never fail on time: a busy machine is not a bug.
settings.register_profile("maskserve", deadline=None)
settings.load_profile("maskserve")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of everything that is random")


REPOSITORY = Path(__file__).parents[1]

CLASSES = ("balloon", "kite")
SCORES = (0.9, 0.6, 0.3)
CLASS_INDICES = (0, 1, 0)
BOXES = ((0.1, 0.1, 0.5, 0.5), (0.4, 0.4, 0.9, 0.9), (0.6, 0.1, 0.8, 0.3))
MASK_SIZE = 28


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """The folder of a bundle whose graph ignores what is in the photo.

    It "finds" three rectangles, whose place is a share of the photo's size:

    =====  =======  =====  ========================  =========================
    index  class    score  left, top, right, bottom  covers in an 80 x 60 photo
    =====  =======  =====  ========================  =========================
    0      balloon  0.9    0.1, 0.1, 0.5, 0.5        32 x 24 = 768 px
    1      kite     0.6    0.4, 0.4, 0.9, 0.9        40 x 30 = 1200 px
    2      balloon  0.3    0.6, 0.1, 0.8, 0.3        16 x 12 = 192 px
    =====  =======  =====  ========================  =========================

    The first two overlap by 8 x 6 = 48 px.
    """
    return write_tiny_bundle(tmp_path / "tiny-bundle", name="tiny")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[str], Path]:
    """Make another bundle like ``tiny_bundle``, of the name that is given."""
    return lambda name: write_tiny_bundle(tmp_path / f"{name}-bundle", name=name)


def write_tiny_bundle(folder: Path, *, name: str) -> Path:
    model = tiny_graph()
    manifest = Manifest(
        name=name,
        version="1",
        licence="Apache-2.0",
        created="2026-01-01T00:00:00Z",
        backbone="none",
        classes=CLASSES,
        category_ids=(1, 2),
        preprocess=Preprocess(short_side_px=64, max_side_px=256),
        postprocess=Postprocess(min_score=0.5, max_instances=3, mask_size=MASK_SIZE),
        provenance=Provenance(data="none", initial_weights="none"),
        files={"model.onnx": hashlib.sha256(model).hexdigest()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@cache
def tiny_graph() -> bytes:
    pytest.importorskip("onnx", reason="making the tiny bundle needs the extra “train”")
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    constants: dict[str, npt.NDArray[Any]] = {
        "shares": np.array(BOXES, np.float32),
        "all_scores": np.array(SCORES, np.float32),
        "all_classes": np.array(CLASS_INDICES, np.int64),
        "all_masks": np.ones((len(SCORES), MASK_SIZE, MASK_SIZE), np.float32),
        "width_height": np.array([2, 1, 2, 1], np.int64),
        "last_axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "width_height"], ["size"]),
        helper.make_node("Cast", ["size"], ["size_px"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["shares", "size_px"], ["all_boxes"]),
        helper.make_node("GreaterOrEqual", ["all_scores", "min_score"], ["keep"]),
        helper.make_node("NonZero", ["keep"], ["kept_rows"]),
        helper.make_node("Transpose", ["kept_rows"], ["kept_columns"]),
        helper.make_node("Squeeze", ["kept_columns", "last_axis"], ["kept"]),
        *(
            helper.make_node("Gather", [f"all_{name}", "kept"], [name])
            for name in ("boxes", "scores", "classes", "masks")
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs=[
            helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3]),
            helper.make_tensor_value_info("min_score", TensorProto.FLOAT, [1]),
        ],
        outputs=[
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("masks", TensorProto.FLOAT, ["N", MASK_SIZE, MASK_SIZE]),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10, producer_name="maskserve"
    )
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public photos beside the checkout."""
    folder: Path = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there is no folder ../shared/data beside the checkout")
    return folder
