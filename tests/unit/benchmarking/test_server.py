from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maskserve.benchmarking.clients import send_photo
from maskserve.benchmarking.server import ServerProcess
from maskserve.core.errors import EngineError


def test_it_is_ready_when_it_is_there_and_gone_when_it_is_left(
    tiny_bundle: Path, png: bytes, tmp_path: Path
) -> None:
    with ServerProcess([tiny_bundle], environment={"XDG_CACHE_HOME": str(tmp_path)}) as server:
        assert 0 < server.listening_s < server.ready_s < server.age_s
        connection = server.connect()
        assert send_photo(connection, png, accept="application/json").startswith(b"{")
        connection.close()
        if sys.platform == "linux":
            memory = server.memory
            assert memory is not None
            # More than a gunicorn that only waits for its worker.
            assert 100e6 < memory.resident_bytes <= memory.peak_bytes
    connection = server.connect()
    with pytest.raises(EngineError, match="gave no answer"):
        send_photo(connection, png, accept="application/json")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"did not start.*no model .*nowhere"):
        ServerProcess([tmp_path / "nowhere"])


def test_a_model_that_does_not_load_is_no_start(tiny_bundle: Path) -> None:
    (tiny_bundle / "model.onnx").write_bytes(b"another")
    with pytest.raises(EngineError, match="did not start: Not every model could be loaded"):
        ServerProcess([tiny_bundle])
