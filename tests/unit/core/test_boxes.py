from __future__ import annotations

import numpy as np

from maskserve.core.boxes import clip_boxes, scale_boxes, xyxy_to_xywh


def test_clipping_keeps_boxes_in_the_image_and_the_argument_as_it_was() -> None:
    boxes = np.array([[-1, 2, 30, 40]], np.float32)
    np.testing.assert_array_equal(clip_boxes(boxes, (10, 20)), [[0, 2, 20, 10]])
    np.testing.assert_array_equal(boxes, [[-1, 2, 30, 40]])


def test_each_axis_is_scaled_by_its_own_ratio() -> None:
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    scaled = scale_boxes(boxes, (10, 20), (30, 40))
    np.testing.assert_array_equal(scaled, [[2, 6, 6, 12]])
    assert scaled.dtype == np.float32


def test_corners_become_width_and_height() -> None:
    boxes = np.array([[1, 2, 4, 8]], np.float32)
    np.testing.assert_array_equal(xyxy_to_xywh(boxes), [[1, 2, 3, 6]])


def test_no_box_is_a_fine_list_of_boxes() -> None:
    none = np.zeros((0, 4), np.float32)
    assert clip_boxes(none, (4, 4)).shape == (0, 4)
    assert scale_boxes(none, (4, 4), (8, 8)).shape == (0, 4)
    assert xyxy_to_xywh(none).shape == (0, 4)
