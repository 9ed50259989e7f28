from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import threading
from maskserve.runtime.allocator import return_large_blocks
from maskserve.runtime.image_io import decode_image, encode_image
from maskserve.runtime.memory import process_memory
import numpy as np

assert return_large_blocks()
photo = encode_image(np.zeros((5000, 5000, 3), np.uint8), "image/jpeg")
before = process_memory().resident_bytes
for _ in range(2):
    thread = threading.Thread(target=decode_image, args=(photo,))
    thread.start()
    thread.join()
print(process_memory().resident_bytes - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_threads_keep_nothing_of_the_photos_that_they_decoded() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 20 * 2**20  # 100 MB and more otherwise


_KEEPS = """
import resource
from maskserve.runtime.allocator import keep_large_blocks
import numpy as np

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use() -> None:
    np.ones(2**26, np.uint8)

use()
before = faults()
use()
print(faults() - before)
assert keep_large_blocks()
use()
before = faults()
use()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_what_is_kept_is_not_asked_for_again() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _KEEPS], capture_output=True, text=True, check=True
    )
    without, kept = map(int, ended.stdout.split())
    assert kept < without / 10
