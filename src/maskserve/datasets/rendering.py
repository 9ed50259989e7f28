"""What computed pictures are made of: linear light, noise, and layers laid over one another."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["GAMMA", "Floats", "blend", "blur", "cloud_noise", "rgb", "smoothstep"]

Floats = npt.NDArray[np.floating[Any]]

GAMMA = 2.2
"""Exponent between an sRGB value in 0..1 and linear light, near enough for pictures."""


def rgb(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], dtype=np.float32)


def blur(image: Floats, sigma_px: float, sigma_y_px: float = 0) -> Floats:
    """Gaussian blur; the same in both directions unless ``sigma_y_px`` is given."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px, sigmaY=sigma_y_px), np.float32)


def smoothstep(values: Floats, low: float, high: float) -> Floats:
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def blend(below: Floats, above: Floats, opacity: Floats) -> Floats:
    """``above`` over ``below``; ``opacity`` has no axis for the colours."""
    return np.asarray(below + (above - below) * opacity[..., None], dtype=np.float32)


def cloud_noise(
    size: tuple[int, int], scale_px: float, rng: np.random.Generator, *, stretch: float
) -> Floats:
    """Fractal noise in 0..1, its coarsest grain ``scale_px`` high and ``stretch`` times as wide."""
    height, width = size
    total = np.zeros(size, dtype=np.float32)
    for octave in range(5):
        grain = scale_px / 2**octave
        grid = rng.random(
            (int(height / grain) + 3, int(width / (grain * stretch)) + 3), dtype=np.float32
        )
        smooth = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += np.asarray(smooth) * 0.5**octave
    low, high = np.percentile(total, (1, 99))
    return np.asarray(np.clip((total - low) / (high - low), 0, 1))
