"""What was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe_machine", "mean_load"]


def describe_machine() -> str:
    """Processor, cores and system in words."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        processor = next(named, processor)
    return f"{processor}, {os.cpu_count()} logical cores, {platform.system()} {platform.machine()}"


def mean_load() -> float | None:
    """How many programs were busy, in the mean of the last minute; None on Windows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
