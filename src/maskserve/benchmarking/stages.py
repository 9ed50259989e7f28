"""Where the time of a photo goes, stage by stage, for several models side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from maskserve.runtime.image_io import FILE_LIMITS, decode_image, encode_image
from maskserve.runtime.predictor import EnginePredictor
from maskserve.runtime.render import draw

__all__ = ["STAGES", "time_stages"]

STAGES = ("decode", "preprocess", "network", "paste", "coverage", "draw", "encode")
"""What happens to a photo on its way from JPEG bytes to the JPEG with the masks drawn in."""

_WARM_UP_ROUNDS = 2


def time_stages(
    predictors: Sequence[EnginePredictor],
    photos: Sequence[bytes],
    *,
    rounds: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Send photos all the way through models, in turn.

    In a round one photo goes through every model, so that what else the machine does hits all
    of them; the next round takes the next photo. Each model sees the photo once untimed before,
    because others have filled the processor's caches with their weights, and because OpenVINO
    prepares for every new size. Instances count from each model's own threshold on.

    Args:
        predictors: The models.
        photos: Files' contents, at least one.
        rounds: How often to measure; photos are taken in turn and again from the first.
        on_progress: Is told after each round how many are done, and of how many.

    Returns:
        float64, shape (models, rounds, stages): milliseconds.

    Raises:
        ImageError: A photo cannot be decoded.
        EngineError: A model failed.
    """
    times = np.empty((len(predictors), rounds, len(STAGES)))
    for number in range(-_WARM_UP_ROUNDS, rounds):
        photo = photos[number % len(photos)]
        for predictor, of_model in zip(predictors, times, strict=True):
            predictor.predict(decode_image(photo, limits=FILE_LIMITS))
            stages = _time_photo(predictor, photo)
            if number >= 0:
                of_model[number] = stages
        if on_progress is not None and number >= 0:
            on_progress(number + 1, rounds)
    return times


def _time_photo(predictor: EnginePredictor, data: bytes) -> tuple[float, ...]:
    """Milliseconds of :data:`STAGES`."""
    start = time.perf_counter()
    photo = decode_image(data, limits=FILE_LIMITS)
    decoded = time.perf_counter()
    instances, times = predictor.predict_timed(photo)
    predicted = time.perf_counter()
    instances.coverage()
    counted = time.perf_counter()
    drawn = draw(photo, instances)
    painted = time.perf_counter()
    encode_image(drawn, "image/jpeg")
    encoded = time.perf_counter()
    return (
        (decoded - start) * 1e3,
        times.preprocess_ms,
        times.network_ms,
        times.paste_ms,
        (counted - predicted) * 1e3,
        (painted - counted) * 1e3,
        (encoded - painted) * 1e3,
    )
