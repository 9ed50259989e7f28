from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from maskserve.core.errors import DatasetError, ParameterError, UnknownModelError
from maskserve.datasets import Dataset
from maskserve.evaluation import comparison
from maskserve.evaluation.comparison import Comparison, compare_models, load_candidates
from maskserve.evaluation.measures import MEASURES
from maskserve.runtime.memory import PeakMemory

CLASSES = ("balloon", "kite")
TRUE_BALLOON = ("balloon", (12, 10, 60, 50))  # which the tiny bundle finds in 100 x 120 pixels
UNSEEN_KITE = ("kite", (70, 5, 90, 25))


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        comparison, "measure_peak_memory", lambda *_, **__: PeakMemory(1_000_000, 5_000_000)
    )


@pytest.fixture
def half_blind(make_bundle: Callable[[str], Path]) -> Path:
    """As the tiny bundle, but balloons are called something else."""
    folder = make_bundle("blind")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classes"] = ["cloud", "kite"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    photos = [[TRUE_BALLOON, UNSEEN_KITE]] + 5 * [[TRUE_BALLOON]] + [[UNSEEN_KITE]]
    return make_dataset(*photos, classes=CLASSES)


def run(dataset: Dataset, *models: Path, resamples: int = 200, seed: int = 0) -> Comparison:
    candidates = load_candidates([str(model) for model in models], precision="f32")
    return compare_models(
        candidates, dataset, precision="f32", rounds=2, resamples=resamples, seed=seed
    )


def test_every_measure_of_every_model_is_there(
    dataset: Dataset, tiny_bundle: Path, half_blind: Path
) -> None:
    steps = set()
    compared = compare_models(
        load_candidates([str(tiny_bundle), str(half_blind)], precision="f32"),
        dataset,
        precision="f32",
        rounds=2,
        resamples=50,
        on_progress=lambda step, done, total: steps.add((step, done <= total)),
    )
    first, second = compared.models
    assert [first.name, second.name] == ["tiny-bundle", "blind-bundle"]
    assert (first.arithmetic, first.input_size) == ("f32", (64, 77))
    assert compared.size_counts == (2, 6, 0)
    for model in compared.models:
        assert set(model.estimates) == {measure.key for measure in MEASURES}
        assert model.estimates["mask_APl"].value is None
        assert model.estimates["peak_memory_mb"].value == 5
        assert model.estimates["gmacs"].value == 0  # the graph only copies constants
        size = (tiny_bundle / "model.onnx").stat().st_size
        assert model.estimates["file_mb"].value == size / 1e6
        assert (model.estimates["total_ms"].value or 0) > 0
    assert all(fits for _, fits in steps)
    assert {step for step, _ in steps} >= {"Evaluating tiny-bundle", "Evaluating blind-bundle"}


def test_the_difference_is_that_of_the_same_photos(
    dataset: Dataset, tiny_bundle: Path, half_blind: Path
) -> None:
    first, second = run(dataset, tiny_bundle, half_blind).models
    better, worse = first.estimates["mask_AP"], second.estimates["mask_AP"]
    assert better.value == pytest.approx(50)  # all balloons, no kite
    assert worse.value == 0
    assert (better.change, better.change_spread) == (0, None)
    assert worse.change == pytest.approx(-50)
    # Resamples without kites have AP 100, those with some 50.
    assert worse.change_spread is not None
    assert worse.change_spread == pytest.approx((-100, -50))


def test_copies_of_a_model_differ_by_nothing(
    dataset: Dataset, tiny_bundle: Path, make_bundle: Callable[[str], Path]
) -> None:
    _, twin = run(dataset, tiny_bundle, make_bundle("twin")).models
    for measure in MEASURES:
        estimate = twin.estimates[measure.key]
        if measure.group == "Accuracy" and estimate.value is not None:
            assert (estimate.change, estimate.change_spread) == (0, None)
        if measure.key == "file_mb":
            assert estimate.change == 1


def test_the_seed_decides_the_intervals(
    make_dataset: Callable[..., Dataset], tiny_bundle: Path
) -> None:
    unseen = ("balloon", (70, 60, 110, 95))
    dataset = make_dataset(*4 * [[TRUE_BALLOON]], *4 * [[TRUE_BALLOON, unseen]], classes=CLASSES)

    def interval(seed: int) -> object:
        (only,) = run(dataset, tiny_bundle, resamples=3, seed=seed).models
        return only.estimates["mask_AP50"].spread

    first = interval(1)
    assert first == interval(1)
    assert {first} != {interval(2), interval(3)}


@pytest.mark.parametrize(("photos", "resamples"), [(1, 100), (3, 0)])
def test_there_is_no_interval_without_other_photos_or_draws(
    make_dataset: Callable[..., Dataset], tiny_bundle: Path, photos: int, resamples: int
) -> None:
    dataset = make_dataset(*photos * [[TRUE_BALLOON]], classes=CLASSES)
    (only,) = run(dataset, tiny_bundle, resamples=resamples).models
    estimate = only.estimates["mask_AP"]
    assert estimate.value == pytest.approx(100)
    assert estimate.spread is estimate.change_spread is None


def test_a_model_of_other_things_is_refused_by_name(
    make_dataset: Callable[..., Dataset], tiny_bundle: Path
) -> None:
    dataset = make_dataset([("dog", (0, 0, 50, 50))], classes=("dog",))
    with pytest.raises(DatasetError, match=r"^tiny-bundle: The model finds “balloon”, “kite”, but"):
        run(dataset, tiny_bundle)


def test_models_are_named_as_short_as_is_clear(tiny_bundle: Path, tmp_path: Path) -> None:
    same = tmp_path / "other" / tiny_bundle.name
    shutil.copytree(tiny_bundle, same)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tiny_bundle)
    names = [c.name for c in load_candidates([str(tiny_bundle), str(same), archive])]
    assert names == [str(tiny_bundle), str(same), "zipped"]
    with pytest.raises(ParameterError, match="is named twice"):
        load_candidates([str(tiny_bundle), str(tiny_bundle)])
    with pytest.raises(UnknownModelError):
        load_candidates(["no-such-model"])
