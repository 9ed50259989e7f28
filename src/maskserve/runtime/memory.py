"""How much memory a model needs, found in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskserve.core.errors import EngineError
from maskserve.runtime.image_io import encode_image, read_image
from maskserve.runtime.openvino_engine import Precision, import_openvino
from maskserve.runtime.registry import load_predictor
from maskserve.runtime.render import draw

__all__ = ["PeakMemory", "ProcessMemory", "measure_peak_memory", "process_memory"]


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The most physical memory that a process held.

    Attributes:
        base_bytes: Before it loaded a model: Python, numpy, OpenCV, OpenVINO and a decoded photo.
        peak_bytes: In the whole of its life.
    """

    base_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Physical memory of a process.

    Attributes:
        resident_bytes: What it holds now.
        peak_bytes: The most that it ever held.
    """

    resident_bytes: int
    peak_bytes: int


def measure_peak_memory(
    model: str | Path, photos: Sequence[Path], *, precision: Precision = "auto"
) -> PeakMemory | None:
    """Load a model in a new process and serve photos with it: file in, drawn JPEG out.

    Args:
        model: As :func:`maskserve.runtime.registry.load_predictor` takes it.
        photos: Files, at least one.
        precision: Of the arithmetic.

    Returns:
        None on systems that do not tell: Windows.

    Raises:
        EngineError: The process failed, for instance because memory ran out.
    """
    # -P: files in the folder where the user stands must not shadow modules.
    command = [sys.executable, "-P", "-m", __name__, str(model), precision, *map(str, photos)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise EngineError(f"{model} could not be run in a process of its own: {last}")
    answer = json.loads(process.stdout)
    return None if answer is None else PeakMemory(**answer)


def process_memory(pid: int | None = None) -> ProcessMemory | None:
    """The physical memory of a process, by default of this one; None where Linux is not."""
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
    except OSError:
        return None
    kilobytes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return ProcessMemory(int(kilobytes["VmRSS"]) * 1024, int(kilobytes["VmHWM"]) * 1024)


def _peak_bytes() -> int | None:
    """The most physical memory that this process held so far."""
    memory = process_memory()
    if memory is not None:
        # Linux's getrusage also counts what the parent held when it started this process.
        return memory.peak_bytes
    try:
        import resource  # noqa: PLC0415 -- not on Windows
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _main(model: str, precision: Precision, *photos: str) -> None:
    import_openvino()
    read_image(Path(photos[0]))
    base = _peak_bytes()
    predictor = load_predictor(model, precision=precision)
    for photo in photos:
        image = read_image(Path(photo))
        encode_image(draw(image, predictor.predict(image)), "image/jpeg")
    peak = _peak_bytes()
    print(json.dumps(None if peak is None else {"base_bytes": base, "peak_bytes": peak}))


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
