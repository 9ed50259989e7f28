from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskserve.core import Instances, MaskCrop
from maskserve.core.errors import DatasetError, ImageError
from maskserve.core.masks import encode_rle
from maskserve.datasets import Dataset, load_dataset
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.evaluation import annotated_instances, evaluate, measure, to_coco

LARGE = (0, 0, 110, 98)
MEDIUM = (10, 10, 60, 60)
SMALL = (80, 80, 100, 95)


def perfect(dataset: Dataset) -> list[Instances]:
    return [annotated_instances(s, dataset.categories.names) for s in dataset.samples]


def disturb(instances: Instances, rng: np.random.Generator) -> Instances:
    """The same instances, moved a little, some of another class, with arbitrary scores."""
    height, width = instances.image_size
    n = len(instances)
    order = np.argsort(-(scores := rng.random(n).astype(np.float32)))
    boxes = instances.boxes_xyxy
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.normal(0, 0.08, boxes.shape).astype(np.float32) * sides
    classes = np.where(
        rng.random(n) < 0.1, rng.integers(0, len(instances.class_names), n), instances.class_indices
    )
    crops = [
        MaskCrop(c.top, c.left, np.roll(c.pixels, int(0.2 * rng.random() * c.pixels.shape[1]), 1))
        for c in instances.crops
    ]
    return Instances(
        instances.image_size,
        instances.class_names,
        np.clip(moved, 0, [width, height, width, height]).astype(np.float32)[order],
        scores[order],
        classes[order],
        tuple(crops[i] for i in order),
    )


def pycocotools_stats(
    dataset: Dataset, predictions: Sequence[Instances], kind: str
) -> dict[str, float]:
    """What pycocotools says when it is used as its own documentation does."""
    results: list[dict[str, Any]] = []
    for sample, instances in zip(dataset.samples, predictions, strict=True):
        for i, mask in enumerate(instances.masks):
            x0, y0, x1, y1 = instances.boxes_xyxy[i].tolist()
            result = {
                "image_id": sample.image_id,
                "category_id": dataset.categories.id_of(int(instances.class_indices[i])),
                "score": float(instances.scores[i]),
            }
            shape = (
                {"bbox": [x0, y0, x1 - x0, y1 - y0]}
                if kind == "bbox"
                else {"segmentation": encode_rle(mask)}
            )
            results.append({**result, **shape})
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(dataset)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = 100 * evaluation.stats
    return dict(zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), stats, strict=False)) | {
        "AR100": stats[8]
    }


def test_annotations_themselves_score_100(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset([("ball", LARGE), ("box", MEDIUM)], [], [("box", SMALL)])
    metrics = measure(dataset, perfect(dataset))
    expected = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"), 100.0)
    assert metrics.bbox == expected
    assert metrics.segm == expected
    assert (metrics.photo_count, metrics.instance_count) == (3, 3)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(tmp_path: Path, seed: int) -> None:
    root = tmp_path / "toys"
    write_via_dataset(root, train=1, val=6, size=(160, 200), instances_per_photo=6)
    dataset = load_dataset(root, split="val")
    rng = np.random.default_rng(seed)
    predictions = [disturb(instances, rng) for instances in perfect(dataset)]
    metrics = measure(dataset, predictions)
    for kind, values in (("bbox", metrics.bbox), ("segm", metrics.segm)):
        expected = pycocotools_stats(dataset, predictions, kind)
        assert 0 < expected["AP"] < 100
        for name, value in values.items():
            assert (-100 if value is None else value) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("name", ["balloon", "coco-mini"])
def test_numbers_on_real_photos_are_those_of_pycocotools(shared_data: Path, name: str) -> None:
    dataset = load_dataset(shared_data / name, split="val" if name == "balloon" else None)
    dataset = replace(dataset, samples=dataset.samples[:50])
    metrics = measure(dataset, perfect(dataset))
    assert metrics.bbox["AP"] == metrics.segm["AP"] == 100
    rng = np.random.default_rng(0)
    predictions = [disturb(instances, rng) for instances in perfect(dataset)]
    metrics = measure(dataset, predictions)
    for kind, values in (("bbox", metrics.bbox), ("segm", metrics.segm)):
        assert values == pytest.approx(pycocotools_stats(dataset, predictions, kind), abs=1e-6)


def test_photos_with_more_than_100_instances_can_be_found_whole(
    make_dataset: Callable[..., Dataset],
) -> None:
    places = [(x, y, x + 4, y + 4) for x in range(0, 115, 8) for y in range(0, 95, 8)]
    dataset = make_dataset([("ball", place) for place in places])
    metrics = measure(dataset, perfect(dataset))
    assert len(places) == 180
    assert metrics.segm["AP"] == 100
    assert metrics.segm["AR100"] == pytest.approx(100 * 100 / 180)


def test_finding_nothing_scores_0(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    metrics = measure(make_dataset([("ball", LARGE)]), [make_instances()])
    assert metrics.bbox["AP"] == metrics.segm["AP"] == metrics.segm["AR100"] == 0


def test_what_no_photo_shows_is_not_measured(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset([("ball", MEDIUM)])
    metrics = measure(dataset, perfect(dataset))
    assert metrics.segm["APs"] is None
    assert metrics.segm["APm"] == 100
    assert metrics.per_class["box"]["segm"]["AP"] is None
    assert "APs" not in metrics.summary()["segm"]
    assert metrics.summary()["segm"]["APm"] == 100


def test_data_set_without_instances_measures_nothing(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    metrics = measure(make_dataset([]), [make_instances(("ball", SMALL, 0.9))])
    assert set(metrics.bbox.values()) == {None}


def test_classes_are_told_apart(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", MEDIUM), ("box", SMALL)])
    found = make_instances(("ball", MEDIUM, 0.9), ("ball", SMALL, 0.8))
    metrics = measure(dataset, [found])
    assert metrics.per_class["ball"]["segm"]["AP"] == 100
    assert metrics.per_class["box"]["segm"]["AP"] == 0
    assert metrics.segm["AP"] == 50


def test_classes_go_by_name_and_foreign_ones_are_left_out(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", MEDIUM)], classes=("ball",))
    classes = ("zebra", "ball")
    found = make_instances(("zebra", MEDIUM, 1.0), ("ball", MEDIUM, 0.5), classes=classes)
    assert measure(dataset, [found]).segm["AP"] == 100


def test_model_of_other_things_is_refused(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    fake_predictor: Callable[..., Any],
) -> None:
    dataset = make_dataset([("ball", MEDIUM)])
    with pytest.raises(DatasetError, match="“zebra”, but “toys val” has annotations of “ball”"):
        measure(dataset, [make_instances(classes=("zebra",))])
    with pytest.raises(DatasetError, match="“zebra”") as caught:
        evaluate(fake_predictor(classes=("zebra",)), dataset)
    assert "--class-name" in (caught.value.hint or "")


def test_what_lies_on_a_crowd_counts_neither_way(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", MEDIUM)], crowds=[(65, 0, 120, 100)])
    found = make_instances(
        ("ball", (70, 10, 90, 30), 0.9), ("ball", (80, 50, 99, 70), 0.8), ("ball", MEDIUM, 0.3)
    )
    metrics = measure(dataset, [found])
    assert metrics.segm["AP"] == metrics.bbox["AP"] == 100
    assert metrics.instance_count == 1


def test_mask_without_a_pixel_counts_as_wrong(
    make_dataset: Callable[..., Dataset], make_instances: Callable[..., Instances]
) -> None:
    dataset = make_dataset([("ball", MEDIUM)])
    found = make_instances(("ball", (0, 0, 0, 0), 0.9), ("ball", MEDIUM, 0.5))
    assert measure(dataset, [found]).segm["AP"] == pytest.approx(50)


def test_every_photo_is_predicted_with_the_low_threshold(
    make_dataset: Callable[..., Dataset],
    make_instances: Callable[..., Instances],
    fake_predictor: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = make_dataset([("ball", MEDIUM)], [("ball", SMALL)])
    predictor = fake_predictor(
        make_instances(("ball", MEDIUM, 0.9)), make_instances(("ball", SMALL, 0.9))
    )
    progress: list[tuple[int, int]] = []
    metrics = evaluate(
        predictor, dataset, min_score=0.07, on_progress=lambda *done: progress.append(done)
    )
    assert metrics.segm["AP"] == 100
    assert predictor.min_scores == [0.07, 0.07]
    assert progress == [(1, 2), (2, 2)]
    assert [len(instances) for instances in metrics.predictions] == [1, 1]
    assert capsys.readouterr().out == ""


def test_photo_of_another_size_than_annotated_is_refused(
    make_dataset: Callable[..., Dataset], fake_predictor: Callable[..., Any]
) -> None:
    dataset = make_dataset([("ball", MEDIUM)])
    turned = replace(dataset, samples=(replace(dataset.samples[0], image_size=(120, 100)),))
    with pytest.raises(DatasetError, match=r"photo_1\.png has the size \(100, 120\)"):
        evaluate(fake_predictor(), turned)


def test_missing_photo_is_named(
    make_dataset: Callable[..., Dataset], fake_predictor: Callable[..., Any]
) -> None:
    dataset = make_dataset([("ball", MEDIUM)])
    dataset.samples[0].image_path.unlink()
    with pytest.raises(ImageError, match=r"photo_1\.png"):
        evaluate(fake_predictor(), dataset)
