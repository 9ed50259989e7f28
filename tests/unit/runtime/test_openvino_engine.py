from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from maskserve.core.errors import BundleCorruptError, EngineError
from maskserve.runtime.openvino_engine import GraphCost, OpenVinoEngine, measure_cost


@pytest.fixture
def model(tiny_bundle: Path) -> bytes:
    return (tiny_bundle / "model.onnx").read_bytes()


@pytest.fixture
def engine(model: bytes) -> OpenVinoEngine:
    return OpenVinoEngine(model, threads=1)


def test_detections_come_with_the_promised_types(engine: OpenVinoEngine) -> None:
    raw = engine.infer(np.zeros((60, 80, 3), np.uint8), min_score=0.5)
    np.testing.assert_allclose(raw.boxes_xyxy, [[8, 6, 40, 30], [32, 24, 72, 54]], atol=1e-4)
    np.testing.assert_allclose(raw.scores, [0.9, 0.6])
    np.testing.assert_array_equal(raw.class_indices, [0, 1])
    assert raw.mask_grids.shape == (2, 28, 28)
    assert raw.boxes_xyxy.dtype == raw.scores.dtype == raw.mask_grids.dtype == np.float32
    assert raw.class_indices.dtype == np.int64


def test_nothing_found_is_a_normal_answer(engine: OpenVinoEngine) -> None:
    raw = engine.infer(np.zeros((60, 80, 3), np.uint8), min_score=0.95)
    assert raw.boxes_xyxy.shape == (0, 4)
    assert raw.mask_grids.shape == (0, 28, 28)
    assert len(engine.infer(np.zeros((60, 80, 3), np.uint8), min_score=0).scores) == 3


def test_answers_outlive_the_next_inference(engine: OpenVinoEngine) -> None:
    first = engine.infer(np.zeros((60, 80, 3), np.uint8), min_score=0)
    before = first.boxes_xyxy.copy()
    engine.infer(np.zeros((600, 800, 3), np.uint8), min_score=0)
    np.testing.assert_array_equal(first.boxes_xyxy, before)


def test_threads_do_not_get_each_others_answers(engine: OpenVinoEngine) -> None:
    def right_edge(width: int) -> float:
        raw = engine.infer(np.zeros((32, width, 3), np.uint8), min_score=0.9)
        return float(raw.boxes_xyxy[0, 2])

    widths = [32 + 2 * (i % 40) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(right_edge, widths))
    np.testing.assert_allclose(found, np.array(widths) / 2)


def test_f32_is_asked_of_openvino(model: bytes) -> None:
    assert OpenVinoEngine(model, precision="f32").arithmetic == "f32"


def test_threads_are_told(model: bytes) -> None:
    assert OpenVinoEngine(model, threads=1).threads == 1
    assert OpenVinoEngine(model).threads >= 1


@pytest.fixture
def half_covered_box() -> bytes:
    """RoIAlign of a box that lies from x = 597.5 + min_score on, where 600 is a border.

    A convolution follows, as in a network, so that OpenVINO does not spare what comes before.
    """
    onnx = pytest.importorskip("onnx", reason="makes a graph")
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    constants = [
        array(np.array([[0, 597.5, 4, 606.5, 12]], np.float32), "box"),
        array(np.array([[0, 1, 1, 1, 1]], np.float32), "moves"),
        array(np.ones((1, 3, 1, 1), np.float32), "sum"),
        array(np.array([1]), "one"),
        array(np.array([5]), "five"),
        array(np.array([0]), "zero"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["nhwc"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["nhwc"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "sum"], ["feature"]),
        helper.make_node("Mul", ["moves", "min_score"], ["move"]),
        helper.make_node("Add", ["box", "move"], ["roi"]),
        helper.make_node("Slice", ["roi", "one", "five", "one"], ["corners"]),
        helper.make_node(
            "RoiAlign",
            ["feature", "corners", "zero"],
            ["pooled"],
            output_height=1,
            output_width=1,
            sampling_ratio=64,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Concat", ["pooled"] * 3, ["thrice"], axis=1),
        helper.make_node("Conv", ["thrice", "sum"], ["masks"]),
        *(helper.make_node("Identity", ["min_score"], [n]) for n in ("boxes", "scores", "classes")),
    ]
    value = helper.make_tensor_value_info
    names = ("boxes", "scores", "classes", "masks")
    graph = helper.make_graph(
        nodes,
        "half_covered_box",
        [
            value("image", onnx.TensorProto.UINT8, [1, "H", "W", 3]),
            value("min_score", onnx.TensorProto.FLOAT, [1]),
        ],
        [value(name, onnx.TensorProto.FLOAT, None) for name in names],
        initializer=constants,
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return bytes(model.SerializeToString())


def test_boxes_of_roi_align_are_not_rounded_to_bfloat16(half_covered_box: bytes) -> None:
    engine = OpenVinoEngine(half_covered_box)
    if engine.arithmetic != "bf16":
        pytest.skip(f"computes in {engine.arithmetic}: this CPU has no bfloat16")
    image = np.zeros((16, 640, 3), np.uint8)
    image[:, :600] = 1
    raw = engine.infer(image, min_score=0)
    # 2.5 of 9 pixels; from 596 to 608 it would be a third.
    assert float(raw.mask_grids.ravel()[0]) / 9 == pytest.approx(2.5 / 9, abs=0.01)


@pytest.fixture
def counted_model() -> bytes:
    """Two convolutions, one of them depthwise, and a matrix product, with 3 + 4 + 20 weights."""
    onnx = pytest.importorskip("onnx", reason="makes a graph")
    helper = onnx.helper
    shapes = {"pointwise": (1, 3, 1, 1), "depthwise": (1, 1, 2, 2), "matrix": (4, 5)}
    weights = [
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["nhwc"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["nhwc"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "pointwise"], ["grey"]),
        helper.make_node("Conv", ["grey", "depthwise"], ["small"], strides=[2, 2]),
        helper.make_node("MatMul", ["small", "matrix"], ["answer"]),
        helper.make_node("Identity", ["min_score"], ["threshold"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "counted",
        [
            value("image", onnx.TensorProto.UINT8, [1, "H", "W", 3]),
            value("min_score", onnx.TensorProto.FLOAT, [1]),
        ],
        [
            value("answer", onnx.TensorProto.FLOAT, None),
            value("threshold", onnx.TensorProto.FLOAT, [1]),
        ],
        initializer=weights,
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("height", [2, 6])
def test_operations_are_counted_for_the_size_of_the_photo(
    counted_model: bytes, height: int
) -> None:
    photo = np.zeros((height, 8, 3), np.uint8)
    pointwise, depthwise = height * 8 * 3, (height // 2) * 4 * 4
    product = (height // 2) * 4 * 5
    assert measure_cost(counted_model, photo, min_score=0) == GraphCost(
        parameters=27, macs=pointwise + depthwise + product
    )


def test_what_is_no_graph_has_no_cost() -> None:
    with pytest.raises(BundleCorruptError, match="OpenVINO cannot use the graph"):
        measure_cost(b"no graph", np.zeros((4, 4, 3), np.uint8), min_score=0)


def test_what_is_no_graph_is_refused_without_openvinos_source_lines() -> None:
    with pytest.raises(BundleCorruptError, match="OpenVINO cannot use the graph") as caught:
        OpenVinoEngine(b"no graph")
    assert ".cpp" not in str(caught.value)


def test_a_graph_with_other_outputs_is_refused() -> None:
    onnx = pytest.importorskip("onnx", reason="makes a graph")
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1])
    answer = onnx.helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["image"], ["answer"])], "other", [value], [answer]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10
    )
    with pytest.raises(BundleCorruptError, match="lacks boxes, classes, masks, min_score, scores"):
        OpenVinoEngine(model.SerializeToString())


class FailingRequest:
    def infer(self, _: object) -> object:
        raise RuntimeError("Exception from src/core.cpp:1:\nout of memory\n")


def test_a_failure_of_openvino_is_an_error_of_ours_and_passes(engine: OpenVinoEngine) -> None:
    photo = np.zeros((60, 80, 3), np.uint8)
    engine._idle_requests.append(FailingRequest())
    with pytest.raises(EngineError, match=r"input of 80 x 60 pixels: out of memory$"):
        engine.infer(photo, min_score=0.5)
    assert len(engine.infer(photo, min_score=0.5).scores) == 2
