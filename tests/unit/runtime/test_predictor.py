from __future__ import annotations

import numpy as np
import pytest

import maskserve
from maskserve.core import Image, Manifest, Provenance
from maskserve.core.predictor import Predictor
from maskserve.runtime.engine import RawDetections
from maskserve.runtime.predictor import EnginePredictor


class EngineSpy:
    """Remembers what it was asked and finds the left half of the photo."""

    def __init__(self) -> None:
        self.asked: list[tuple[Image, float]] = []

    def infer(self, image: Image, *, min_score: float) -> RawDetections:
        self.asked.append((image, min_score))
        height, width = image.shape[:2]
        return RawDetections(
            np.array([[0, 0, width / 2, height]], np.float32),
            np.array([0.9], np.float32),
            np.zeros(1, np.int64),
            np.ones((1, 28, 28), np.float32),
        )


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="m",
        version="1",
        licence="Apache-2.0",
        created="2026-01-01",
        backbone="none",
        classes=("balloon",),
        category_ids=(1,),
        preprocess={"short_side_px": 64, "max_side_px": 96},  # type: ignore[arg-type]
        postprocess={"min_score": 0.7},  # type: ignore[arg-type]
        provenance=Provenance(data="", initial_weights=""),
        files={},
    )


def test_the_network_sees_the_resized_photo_and_the_caller_the_photo_itself(
    photo: Image, manifest: Manifest
) -> None:
    spy = EngineSpy()
    predictor: Predictor = EnginePredictor(spy, manifest)
    instances = predictor.predict(photo)
    assert spy.asked[0][0].shape == (64, 85, 3)
    assert instances.image_size == (60, 80)
    assert instances.coverage().masked_percent == 50


def test_the_models_own_threshold_counts_unless_another_is_given(
    photo: Image, manifest: Manifest
) -> None:
    spy = EngineSpy()
    predictor = EnginePredictor(spy, manifest)
    predictor.predict(photo)
    predictor.predict(photo, min_score=0.0)
    assert [min_score for _, min_score in spy.asked] == [0.7, 0.0]


def test_every_stage_is_timed(photo: Image, manifest: Manifest) -> None:
    _, times = EnginePredictor(EngineSpy(), manifest).predict_timed(photo)
    assert times.preprocess_ms > 0
    assert times.network_ms > 0
    assert times.infer_ms == times.preprocess_ms + times.network_ms
    assert times.paste_ms > 0


def test_load_is_at_hand_in_the_package(tiny_bundle: object, photo: Image) -> None:
    instances = maskserve.load(str(tiny_bundle)).predict(photo)
    assert instances.coverage().masked_px == 768 + 1200 - 48


def test_the_package_has_nothing_it_does_not_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = maskserve.lod
