from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from maskserve.runtime.model_cache import ModelCache, user_cache
from maskserve.runtime.openvino_engine import OpenVinoEngine


def test_what_was_put_is_given_back_for_the_same_key_only(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "new" / "folder")
    assert cache.get(b"model", "f32") is None
    cache.put(b"compiled", b"model", "f32")
    assert cache.get(b"model", "f32") == b"compiled"
    assert cache.get(b"model", "bf16") is None
    assert cache.get(b"other", "f32") is None
    assert cache.get(b"model", "f", "32") is None


@pytest.mark.parametrize("keep", [0, 10, 39])
def test_half_a_file_counts_as_none(tmp_path: Path, keep: int) -> None:
    cache = ModelCache(tmp_path)
    cache.put(b"compiled", b"model")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    assert cache.get(b"model") is None


def test_those_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, most=2)
    for age, model in enumerate((b"b", b"a")):
        cache.put(b"compiled " + model, model)
        (new,) = (file for file in tmp_path.iterdir() if file.stat().st_mtime > 1000)
        os.utime(new, (age, age))
    assert cache.get(b"b") is not None  # now used after a
    cache.put(b"compiled c", b"c")
    assert [cache.get(model) is not None for model in (b"a", b"b", b"c")] == [False, True, True]


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ModelCache(tmp_path / "file")
    cache.put(b"compiled", b"model")
    assert cache.get(b"model") is None


def test_the_engine_answers_alike_from_the_cache(tiny_bundle: Path, tmp_path: Path) -> None:
    model = (tiny_bundle / "model.onnx").read_bytes()
    cache = ModelCache(tmp_path / "cache")
    photo = np.zeros((60, 80, 3), np.uint8)
    first = OpenVinoEngine(model, cache=cache).infer(photo, min_score=0.5)
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_ctime_ns, file.read_bytes()
    again = OpenVinoEngine(model, cache=cache).infer(photo, min_score=0.5)
    np.testing.assert_array_equal(again.boxes_xyxy, first.boxes_xyxy)
    np.testing.assert_array_equal(again.mask_grids, first.mask_grids)
    assert file.read_bytes() == written[1]
    OpenVinoEngine(model, cache=cache, precision="f32", threads=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_what_openvino_cannot_read_is_compiled_again(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = (tiny_bundle / "model.onnx").read_bytes()
    cache = ModelCache(tmp_path)
    monkeypatch.setattr(cache, "get", lambda *_: b"of another program")
    engine = OpenVinoEngine(model, cache=cache)
    assert len(engine.infer(np.zeros((60, 80, 3), np.uint8), min_score=0.5).scores) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has another folder")
def test_the_users_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = user_cache()
    assert cache is not None
    cache.put(b"compiled", b"model")
    assert [path.name for path in tmp_path.iterdir()] == ["maskserve"]
