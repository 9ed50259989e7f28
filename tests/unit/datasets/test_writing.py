from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags
from PIL import Image as PillowImage

from maskserve.core.categories import Categories
from maskserve.core.errors import OutputError, ParameterError
from maskserve.core.masks import encode_rle
from maskserve.datasets import (
    WRITABLE_FORMAT_NAMES,
    Annotation,
    Dataset,
    Sample,
    load_dataset,
    load_splits,
    write_dataset,
)
from maskserve.datasets.flaws import FlawError
from maskserve.datasets.polygons import fit_polygons, rectangle_polygon
from maskserve.datasets.synthetic import write_via_dataset
from maskserve.datasets.types import Polygon

Splits = Mapping[str | None, Dataset]

PHOTO_NAMES = ("a.png", "A.PNG", "a.jpg", "a.b.png", "b c.png", "ü.png", "no_suffix")
CLASS_NAMES = ("dog", "Dog", "hot dog", "yes", "null", "7", "a: b", "#x", "mûre, “ripe”")


def found_in(sample: Sample, *, crowds: bool) -> list[tuple[int, str, bool]]:
    """Class, pixels and kind of each annotation of a sample, in order."""
    return [
        (a.class_index, a.to_rle(sample.image_size)["counts"], a.is_crowd)
        for a in sample.annotations
        if crowds or not a.is_crowd
    ]


def content(dataset: Dataset, *, crowds: bool) -> dict[bytes, tuple[Any, ...]]:
    """Sizes and annotations, with names of classes, by the bytes of the photo's file."""
    names = dataset.categories.names
    return {
        sample.image_path.read_bytes(): (
            sample.image_size,
            [(names[i], *rest) for i, *rest in found_in(sample, crowds=crowds)],
        )
        for sample in dataset.samples
    }


def outlines(dataset: Dataset) -> dict[bytes, list[Polygon]]:
    """The instances that consist of one outline, by the bytes of the photo's file."""
    return {
        sample.image_path.read_bytes(): [
            a.polygons[0] for a in sample.annotations if len(a.polygons) == 1 and not a.is_crowd
        ]
        for sample in dataset.samples
    }


def has_only_outlines(dataset: Dataset) -> bool:
    return all(len(a.polygons) == 1 for s in dataset.samples for a in s.annotations)


def told(losses: Mapping[str, int]) -> dict[str, int]:
    """What was lost, but for names of photos."""
    return {loss: times for loss, times in losses.items() if loss != "photo renamed"}


def outline_losses(splits: Splits) -> dict[str, int]:
    """What a format has to tell that has neither crowds nor masks nor parts."""
    losses: Counter[str] = Counter()
    for dataset in splits.values():
        for annotation in (a for sample in dataset.samples for a in sample.annotations):
            if annotation.is_crowd:
                losses["crowd region left out"] += 1
            elif annotation.rle is not None:
                losses["mask turned into an outline of the same pixels"] += 1
            elif len(annotation.polygons) > 1:
                losses["instance of several parts joined into one outline"] += 1
    return dict(losses)


@st.composite
def an_outline(draw: st.DrawFn) -> Polygon:
    # Hundredths of a pixel, as COCO has them; some lie outside of the photo.
    coordinate = st.integers(-300, 2500).map(lambda hundredths: hundredths / 100)
    vertices = draw(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7))
    return np.array(vertices)


@st.composite
def an_annotation(draw: st.DrawFn, size: tuple[int, int], classes: int) -> Annotation:
    class_index = draw(st.integers(0, classes - 1))
    is_crowd = draw(st.booleans())
    if draw(st.booleans()):
        mask = draw(arrays(np.bool_, size))
        assume(mask.any())
        return Annotation(class_index, rle=encode_rle(mask), is_crowd=is_crowd)
    parts = draw(st.lists(an_outline(), min_size=1, max_size=3))
    try:
        return Annotation(class_index, fit_polygons(parts, size), is_crowd=is_crowd)
    except FlawError:
        assume(False)
        raise


@contextmanager
def made(data: st.DataObject, *, most_classes: int = 3) -> Iterator[tuple[Splits, Path]]:
    """Data sets of any kind, whose photos are files, and a folder that is not there yet."""
    names = data.draw(
        st.lists(st.sampled_from(CLASS_NAMES), min_size=1, max_size=most_classes, unique=True)
    )
    ids = data.draw(
        st.lists(st.integers(0, 99), min_size=len(names), max_size=len(names), unique=True)
    )
    categories = Categories(tuple(names), tuple(sorted(ids)))
    keys: list[str | None] = data.draw(st.sampled_from([[None], ["val"], ["train", "test"]]))
    with TemporaryDirectory() as temporary:
        splits: dict[str | None, Dataset] = {}
        for key in keys:
            numbers = data.draw(st.lists(st.integers(1, 999), min_size=1, max_size=4, unique=True))
            samples = []
            for number in numbers:
                name = data.draw(st.sampled_from(PHOTO_NAMES))
                path = Path(temporary) / "source" / f"{key} {number}" / name
                height, width = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
                orientation = data.draw(st.sampled_from((1, 3, 6)))
                _write_photo(path, (height, width), orientation, colour=number)
                size = (width, height) if orientation == 6 else (height, width)
                found = data.draw(st.lists(an_annotation(size, len(names)), max_size=4))
                samples.append(Sample(path, number, size, tuple(found)))
            splits[key] = Dataset("made", categories, tuple(samples))
        yield splits, Path(temporary) / "out"


def _write_photo(path: Path, size: tuple[int, int], orientation: int, *, colour: int) -> None:
    """A PNG, whatever its name, of which no other has the same bytes."""
    path.parent.mkdir(parents=True)
    exif = PillowImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = PillowImage.new("RGB", size[::-1], (colour // 256, colour % 256, 0))
    picture.save(path, format="PNG", exif=exif)


@settings(max_examples=50)  # each writes and reads files
@given(st.data())
def test_coco_keeps_everything(data: st.DataObject) -> None:
    with made(data) as (splits, out):
        losses = write_dataset(out, splits, format="coco")
        back = load_splits(out)
        assert told(losses) == {}
        assert back.keys() == splits.keys()
        for key, dataset in splits.items():
            assert back[key].categories == dataset.categories
            for before, after in zip(dataset.samples, back[key].samples, strict=True):
                assert after.image_id == before.image_id
                assert after.image_size == before.image_size
                assert after.image_path.read_bytes() == before.image_path.read_bytes()
                assert found_in(after, crowds=True) == found_in(before, crowds=True)
                for a, b in zip(before.annotations, after.annotations, strict=True):
                    assert [p.tolist() for p in a.polygons] == [p.tolist() for p in b.polygons]


@settings(max_examples=50)  # each writes and reads files
@given(st.data())
def test_yolo_keeps_pixels_and_the_list_of_classes(data: st.DataObject) -> None:
    with made(data) as (splits, out):
        losses = write_dataset(out, splits, format="yolo")
        back = load_splits(out)
        assert list(back) == sorted("train" if key is None else key for key in splits)
        for key, dataset in splits.items():
            after = back[key or "train"]
            assert after.categories.names == dataset.categories.names
            assert content(after, crowds=True) == content(dataset, crowds=False)
            if has_only_outlines(dataset):
                expected = outlines(dataset)
                for photo, found in outlines(after).items():
                    for outline, original in zip(found, expected[photo], strict=True):
                        assert outline == pytest.approx(original, abs=1e-6)
    assert told(losses) == outline_losses(splits)


@settings(max_examples=50)  # each writes and reads files
@given(st.data())
def test_via_keeps_pixels_and_the_classes_that_occur(data: st.DataObject) -> None:
    with made(data) as (splits, out):
        losses = write_dataset(out, splits, format="via")
        back = load_splits(out)
        assert back.keys() == splits.keys()
        classes = {
            dataset.categories.names[a.class_index]
            for dataset in splits.values()
            for sample in dataset.samples
            for a in sample.annotations
            if not a.is_crowd
        }
        for key, dataset in splits.items():
            assert back[key].categories.names == tuple(sorted(classes) or ["out"])
            assert content(back[key], crowds=True) == content(dataset, crowds=False)
            if has_only_outlines(dataset):
                expected = outlines(dataset)
                for photo, found in outlines(back[key]).items():
                    for outline, original in zip(found, expected[photo], strict=True):
                        assert outline.tolist() == original.tolist()
    listed = {name for dataset in splits.values() for name in dataset.categories.names}
    expected_losses = outline_losses(splits)
    if listed != classes:
        expected_losses["class without any instance left out"] = len(listed - classes)
    assert told(losses) == expected_losses


@settings(max_examples=50)  # each writes and reads files
@given(st.data())
def test_mask_folders_keep_pixels(data: st.DataObject) -> None:
    with made(data, most_classes=1) as (splits, out):
        losses = write_dataset(out, splits, format="masks")
        (name,) = next(iter(splits.values())).categories.names
        back = load_splits(out, class_name=name)
        assert back.keys() == splits.keys()
        for key, dataset in splits.items():
            assert back[key].categories.names == (name,)
            assert content(back[key], crowds=True) == content(dataset, crowds=False)
    crowds = sum(a.is_crowd for d in splits.values() for s in d.samples for a in s.annotations)
    assert losses.get("crowd region left out", 0) == crowds


@pytest.fixture
def toys(tmp_path: Path) -> Splits:
    root = tmp_path / "toys"
    write_via_dataset(root, train=2, val=1, size=(48, 64), instances_per_photo=2)
    return load_splits(root)


@pytest.mark.parametrize("format_name", WRITABLE_FORMAT_NAMES)
def test_a_chain_of_formats_ends_with_the_same_masks(
    toys: Splits, tmp_path: Path, format_name: str
) -> None:
    write_dataset(tmp_path / "a", toys, format=format_name)
    write_dataset(tmp_path / "b", load_splits(tmp_path / "a", class_name="toys"), format="masks")
    back = load_splits(tmp_path / "b", class_name="toys")
    for key in ("train", "val"):
        assert content(back[key], crowds=True) == content(toys[key], crowds=True)


@pytest.mark.parametrize("format_name", WRITABLE_FORMAT_NAMES)
def test_photos_can_be_linked(toys: Splits, tmp_path: Path, format_name: str) -> None:
    write_dataset(tmp_path / "out", toys, format=format_name, link=True)
    (before,) = toys["val"].samples
    (after,) = load_dataset(tmp_path / "out", split="val", class_name="toys").samples
    assert after.image_path.samefile(before.image_path)


@pytest.mark.parametrize(
    ("name", "format_name"), [("balloon", "masks"), ("coco-mini", "yolo"), ("nuclei", "via")]
)
def test_real_masks_stay_as_they_are(
    shared_data: Path, tmp_path: Path, name: str, format_name: str
) -> None:
    splits = {
        split: replace(dataset, samples=dataset.samples[:30])
        for split, dataset in load_splits(shared_data / name).items()
    }
    write_dataset(tmp_path / "out", splits, format=format_name)
    back = load_splits(tmp_path / "out", class_name=name)
    for before, after in zip(splits.values(), back.values(), strict=True):
        assert content(after, crowds=True) == content(before, crowds=False)


def test_progress_counts_the_photos(toys: Splits, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "out", toys, format="coco", on_progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_photos_of_one_name_are_numbered(toys: Splits, tmp_path: Path) -> None:
    (sample,) = toys["val"].samples
    other = tmp_path / "other" / sample.image_path.name.upper()
    other.parent.mkdir()
    other.write_bytes(sample.image_path.read_bytes())
    twice = replace(
        toys["val"],
        samples=(sample, replace(sample, image_path=other, image_id=sample.image_id + 1)),
    )
    losses = write_dataset(tmp_path / "out", {None: twice}, format="coco")
    assert losses == {"photo renamed": 1}
    names = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
    assert names == ["SHAPES_002-2.PNG", "shapes_002.png"]


def test_nothing_is_written_where_something_is(toys: Splits, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is there already, and not empty"):
        write_dataset(tmp_path / "out", toys, format="coco")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    write_dataset(tmp_path / "out", toys, format="coco")
    assert len(load_splits(tmp_path / "out")) == 2


def test_a_failure_leaves_nothing_behind(toys: Splits, tmp_path: Path) -> None:
    toys["val"].samples[0].image_path.unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot be written"):
        write_dataset(tmp_path / "out", toys, format="coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_unknown_format_is_refused(toys: Splits, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"“labelme” cannot be written\. Known: coco, via"):
        write_dataset(tmp_path / "out", toys, format="labelme")


def test_several_classes_do_not_fit_into_mask_folders(toys: Splits, tmp_path: Path) -> None:
    (sample,) = toys["val"].samples
    first, second = sample.annotations
    pets = Dataset(
        "pets",
        Categories.from_names(["cat", "dog"]),
        (replace(sample, annotations=(first, replace(second, class_index=1))),),
    )
    with pytest.raises(ParameterError, match="there are instances of 2: cat, dog"):
        write_dataset(tmp_path / "out", {None: pets}, format="masks")


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (("night",), "has the splits train, val and test; “night” cannot be one"),
        (("val", "valid"), "has one split “val”, but here are two"),
        (("train", "stage1_train"), "has one split “train”, but here are two"),
    ],
)
def test_yolo_has_three_splits(
    toys: Splits, tmp_path: Path, keys: tuple[str, ...], what: str
) -> None:
    with pytest.raises(ParameterError, match=what):
        write_dataset(tmp_path / "out", dict.fromkeys(keys, toys["val"]), format="yolo")


def test_coco_file_has_what_other_tools_ask_for(
    tmp_path: Path, write_photo: Callable[..., None]
) -> None:
    write_photo(tmp_path / "photo.jpg", (40, 60))
    square = Annotation(0, fit_polygons([rectangle_polygon(5, 10, 20, 8)], (40, 60)))
    mask: npt.NDArray[np.bool_] = np.zeros((40, 60), dtype=np.bool_)
    mask[30:, 50:] = True
    crowd = Annotation(0, rle=encode_rle(mask), is_crowd=True)
    sample = Sample(tmp_path / "photo.jpg", 17, (40, 60), (square, crowd))
    dataset = Dataset("pets", Categories(("cat",), (90,)), (sample,))
    write_dataset(tmp_path / "out", {"val": dataset}, format="coco")
    document = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert document == {
        "images": [{"id": 17, "file_name": "photo.jpg", "height": 40, "width": 60}],
        "annotations": [
            {
                "id": 1,
                "image_id": 17,
                "category_id": 90,
                "segmentation": [[5, 10, 25, 10, 25, 18, 5, 18]],
                "area": 160,
                "bbox": [5, 10, 20, 8],
                "iscrowd": 0,
            },
            {
                "id": 2,
                "image_id": 17,
                "category_id": 90,
                "segmentation": encode_rle(mask),
                "area": 100,
                "bbox": [50, 30, 10, 10],
                "iscrowd": 1,
            },
        ],
        "categories": [{"id": 90, "name": "cat"}],
    }
