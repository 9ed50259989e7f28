from __future__ import annotations

from typing import Any

import numpy as np

from maskserve.benchmarking.stages import STAGES, time_stages
from maskserve.core import Image, Instances
from maskserve.runtime.image_io import encode_image
from maskserve.runtime.predictor import StageTimes


class Recorder:
    """Writes down its name and the photo's grey, and finds nothing."""

    def __init__(self, name: str, log: list[tuple[str, int, bool]]) -> None:
        self._name = name
        self._log = log

    def predict(self, image: Image, *, timed: bool = False) -> Instances:
        self._log.append((self._name, int(image[0, 0, 0]), timed))
        empty = np.zeros((0, 4), np.float32)
        none = np.zeros(0, np.float32)
        return Instances(image.shape[:2], ("ball",), empty, none, none.astype(np.int64), ())

    def predict_timed(self, image: Image) -> tuple[Instances, StageTimes]:
        return self.predict(image, timed=True), StageTimes(1.0, 2.0, 3.0)


def test_every_round_sends_one_photo_through_all_models_in_turn() -> None:
    log: list[tuple[str, int, bool]] = []
    models: Any = [Recorder("a", log), Recorder("b", log)]
    photos = [
        encode_image(np.full((16, 16, 3), grey, np.uint8), "image/jpeg") for grey in (50, 200)
    ]
    seen: list[tuple[int, int]] = []
    times = time_stages(
        models, photos, rounds=3, on_progress=lambda done, total: seen.append((done, total))
    )
    assert times.shape == (2, 3, len(STAGES))
    assert (times >= 0).all()
    for stage, ms in {"preprocess": 1, "network": 2, "paste": 3}.items():
        assert (times[..., STAGES.index(stage)] == ms).all()
    # Each model sees each photo once without the clock; the last rounds are those that count.
    of_rounds = [
        [(name, grey, timed) for name in "ab" for timed in (False, True)] for grey in (50, 200, 50)
    ]
    assert log[-12:] == [entry for of_round in of_rounds for entry in of_round]
    assert seen == [(1, 3), (2, 3), (3, 3)]
