from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maskserve.core.errors import (
    BundleCorruptError,
    BundleMissingError,
    EngineError,
    ParameterError,
    ServerNotReadyError,
    UnknownModelError,
)
from maskserve.runtime.bundle import Bundle, read_bundle
from maskserve.runtime.openvino_engine import OpenVinoEngine
from maskserve.runtime.registry import ModelRegistry, load_engine, load_predictor


def test_a_predictor_of_a_bundle_answers(tiny_bundle: Path) -> None:
    predictor = load_predictor(tiny_bundle, precision="f32", threads=1)
    instances = predictor.predict(np.zeros((60, 80, 3), np.uint8))
    assert instances.coverage().masked_px == 768 + 1200 - 48
    assert [instances.class_names[i] for i in instances.class_indices] == ["balloon", "kite"]


def test_a_bundle_may_ask_for_exact_arithmetic(tiny_bundle: Path) -> None:
    fast = read_bundle(tiny_bundle)
    exact = Bundle(fast.path, fast.manifest.model_copy(update={"arithmetic": "f32"}), fast.model)
    assert load_engine(exact).arithmetic == "f32"
    assert load_engine(fast, precision="f32").arithmetic == "f32"
    assert load_engine(fast).arithmetic == OpenVinoEngine(fast.model).arithmetic


def test_threads_follow_a_limit_of_cpu_time_unless_there_is_a_number(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskserve.runtime.registry.cpu_limit", lambda: 1)
    assert load_engine(read_bundle(tiny_bundle)).threads == 1
    if os.cpu_count() != 1:
        assert load_engine(read_bundle(tiny_bundle), threads=2).threads == 2


def test_names_are_known_before_anything_is_loaded(
    make_bundle: Callable[[str], Path],
) -> None:
    registry = ModelRegistry([str(make_bundle("b")), str(make_bundle("a"))])
    assert registry.names == ("b", "a")
    ready_at_once = registry.ready
    with pytest.raises(ServerNotReadyError, match="“a”"):
        registry.get("a")
    registry.load()
    assert (ready_at_once, registry.ready) == (False, True)
    assert registry.get().manifest.name == "b"
    assert registry.get("a").manifest.name == "a"


def test_one_broken_bundle_does_not_take_the_others_with_it(
    make_bundle: Callable[[str], Path],
) -> None:
    good, broken = make_bundle("good"), make_bundle("broken")
    (broken / "model.onnx").write_bytes(b"junk")
    registry = ModelRegistry([good, broken])
    registry.load()
    assert not registry.ready
    assert list(registry.failures) == ["broken"]
    assert registry.get("good").manifest.name == "good"
    with pytest.raises(BundleCorruptError, match="sha256"):
        registry.get("broken")


def test_a_bundle_without_a_manifest_goes_by_its_path(tmp_path: Path) -> None:
    registry = ModelRegistry([tmp_path])
    assert registry.names == (str(tmp_path),)
    with pytest.raises(BundleMissingError):
        registry.get()
    registry.load()
    assert not registry.ready


def test_a_bundle_that_was_mended_can_be_loaded_again(tiny_bundle: Path) -> None:
    model = (tiny_bundle / "model.onnx").read_bytes()
    (tiny_bundle / "model.onnx").write_bytes(b"junk")
    registry = ModelRegistry([tiny_bundle])
    registry.load()
    (tiny_bundle / "model.onnx").write_bytes(model)
    registry.load()
    assert registry.ready
    assert not registry.failures


def test_an_unknown_name_gets_the_nearest(tiny_bundle: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"Did you mean “tiny”\?"):
        ModelRegistry([tiny_bundle]).get("tinny")


def test_two_models_of_one_name_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ParameterError, match="Two models are called “tiny”"):
        ModelRegistry([tiny_bundle, tiny_bundle])


def test_no_model_is_refused() -> None:
    with pytest.raises(ParameterError, match="No model"):
        ModelRegistry([])


def test_a_misspelt_model_is_refused_at_once() -> None:
    with pytest.raises(UnknownModelError):
        ModelRegistry(["no-such-model"])


def change_version(bundle: Path, version: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "version": version}))


class TestReloading:
    @pytest.fixture
    def registry(self, tiny_bundle: Path) -> ModelRegistry:
        registry = ModelRegistry([tiny_bundle])
        registry.load()
        assert registry.ready
        return registry

    def test_what_has_not_changed_is_left_alone(self, registry: ModelRegistry) -> None:
        before = registry.get()
        assert registry.reload() == {}
        assert registry.get() is before

    def test_a_changed_bundle_takes_over(self, registry: ModelRegistry, tiny_bundle: Path) -> None:
        before = registry.get()
        change_version(tiny_bundle, "next")
        assert registry.reload() == {before.manifest.name: None}
        assert registry.get().manifest.version == "next"
        assert len(before.predict(np.zeros((60, 80, 3), np.uint8))) == 2  # for who holds it still

    def test_a_broken_one_does_not(self, registry: ModelRegistry, tiny_bundle: Path) -> None:
        before = registry.get()
        change_version(tiny_bundle, "next")
        (tiny_bundle / "model.onnx").write_bytes(b"junk")
        (error,) = registry.reload().values()
        assert isinstance(error, BundleCorruptError)
        assert registry.get() is before
        assert (registry.ready, registry.failures) == (True, {})

    def test_nor_does_one_that_fails_at_its_first_photo(
        self, registry: ModelRegistry, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no such kernel")

        before = registry.get()
        change_version(tiny_bundle, "next")
        monkeypatch.setattr(OpenVinoEngine, "infer", fail)
        (error,) = registry.reload().values()
        assert isinstance(error, EngineError)
        assert "no such kernel" in str(error)
        assert registry.get() is before

    def test_nor_does_another_model(self, registry: ModelRegistry, tiny_bundle: Path) -> None:
        before = registry.get()
        manifest = json.loads((tiny_bundle / "manifest.json").read_text())
        (tiny_bundle / "manifest.json").write_text(json.dumps({**manifest, "name": "other"}))
        (error,) = registry.reload().values()
        assert "another model now, “other”" in str(error)
        assert registry.get() is before

    def test_a_bundle_that_is_gone(self, registry: ModelRegistry, tiny_bundle: Path) -> None:
        before = registry.get()
        shutil.rmtree(tiny_bundle)
        (error,) = registry.reload().values()
        assert isinstance(error, BundleMissingError)
        assert registry.get() is before

    def test_what_could_not_be_loaded_before_is_tried_again(self, tiny_bundle: Path) -> None:
        model = (tiny_bundle / "model.onnx").read_bytes()
        (tiny_bundle / "model.onnx").write_bytes(b"junk")
        registry = ModelRegistry([tiny_bundle])
        registry.load()
        (error,) = registry.reload().values()
        assert isinstance(error, BundleCorruptError)
        (tiny_bundle / "model.onnx").write_bytes(model)
        assert list(registry.reload().values()) == [None]
        assert (registry.ready, registry.failures) == (True, {})
