"""Decodes broken images in a process of its own, where a crash harms nobody.

``decode_worker.py mutations SEED START STOP`` or ``decode_worker.py files PATH...``. It prints
the name of each input before it decodes it, and a JSON object at the end.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from image_mutations import mutation
from maskserve.core.errors import ImageError
from maskserve.runtime.image_io import DEFAULT_LIMITS, decode_image
from maskserve.runtime.memory import process_memory

LIMIT_S = 60
"""No photo may take longer, not even on a busy machine."""
ADDRESS_SPACE_BYTES = 4 * 2**30


def inputs(kind: str, *rest: str) -> Iterator[tuple[str, bytes]]:
    if kind == "files":
        for path in map(Path, rest):
            yield path.name, path.read_bytes()
    else:
        seed, start, stop = map(int, rest)
        for index in range(start, stop):
            yield str(index), mutation(seed, index)


def outcome(data: bytes) -> str:
    """What became of the data; raises whatever ``decode_image`` must not raise."""
    try:
        image = decode_image(data)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        return error.code
    height, width, channels = image.shape
    assert image.dtype == np.uint8
    assert channels == 3
    assert 0 < height * width <= DEFAULT_LIMITS.max_pixels
    return "decoded"


def main() -> None:
    import resource  # noqa: PLC0415 -- not on Windows

    faulthandler.enable()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    resident_bytes = []
    slowest_s = 0.0
    peak_bytes = 0
    for name, data in inputs(*sys.argv[1:]):
        print(name, flush=True)
        # Without a handler it ends the process, also within a library.
        signal.alarm(LIMIT_S)
        start = time.perf_counter()
        try:
            outcomes[outcome(data)] += 1
        except Exception:
            failures[name] = traceback.format_exc()
        signal.alarm(0)
        slowest_s = max(slowest_s, time.perf_counter() - start)
        memory = process_memory()
        assert memory is not None
        resident_bytes.append(memory.resident_bytes)
        peak_bytes = memory.peak_bytes
    fifth = max(1, len(resident_bytes) // 5)
    print(
        json.dumps(
            {
                "outcomes": outcomes,
                "failures": failures,
                "slowest_s": slowest_s,
                "peak_bytes": peak_bytes,
                "growth_bytes": sorted(resident_bytes[-fifth:])[fifth // 2]
                - sorted(resident_bytes[:fifth])[fifth // 2],
            }
        )
    )


if __name__ == "__main__":
    main()
