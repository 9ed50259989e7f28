from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskserve.core.categories import Categories
from maskserve.core.errors import DatasetError, UnknownClassError
from maskserve.core.masks import encode_rle
from maskserve.datasets import (
    Annotation,
    Dataset,
    Sample,
    load_dataset,
    select_classes,
    write_dataset,
)
from maskserve.datasets.polygons import fit_polygons, rectangle_polygon

SIZE = (40, 60)
SQUARE = fit_polygons([rectangle_polygon(5, 5, 10, 10)], SIZE)
PETS = Categories(("person", "dog", "frisbee"), (1, 18, 34))
PERSON, DOG, FRISBEE = (Annotation(index, SQUARE) for index in range(3))
PERSONS = Annotation(0, rle=encode_rle(np.ones(SIZE, dtype=np.bool_)), is_crowd=True)
DOGS = replace(PERSONS, class_index=1)


def dataset_of(*photos: tuple[Annotation, ...]) -> Dataset:
    """Photos 0.jpg, 1.jpg … with the ids 10, 11 … and these annotations."""
    samples = [
        Sample(Path(f"{number}.jpg"), 10 + number, SIZE, annotations)
        for number, annotations in enumerate(photos)
    ]
    return Dataset("pets", PETS, tuple(samples))


PHOTOS = dataset_of(
    (PERSON, DOG, PERSON), (PERSON,), (), (FRISBEE, DOG), (DOGS, PERSON), (PERSONS,), (DOGS,)
)


def test_classes_keep_their_ids_and_their_order() -> None:
    assert select_classes(PHOTOS, ["frisbee", "dog"]).categories == Categories(
        ("dog", "frisbee"), (18, 34)
    )


def test_photos_and_annotations_of_other_classes_go() -> None:
    selected = select_classes(PHOTOS, ["frisbee"])
    assert [sample.image_id for sample in selected.samples] == [13]
    assert [a.class_index for a in selected.samples[0].annotations] == [0]


def test_crowds_of_the_classes_stay_and_others_go() -> None:
    selected = select_classes(PHOTOS, ["dog"])
    kept = [(s.image_id, [a.is_crowd for a in s.annotations]) for s in selected.samples]
    assert kept == [(10, [False]), (13, [False]), (14, [True]), (16, [True])]


@pytest.mark.parametrize(("keep_empty", "photos"), [(0, 4), (1, 5), (2, 6), (9, 7), (None, 7)])
def test_photos_without_the_classes_may_stay(keep_empty: int | None, photos: int) -> None:
    selected = select_classes(PHOTOS, ["dog"], keep_empty=keep_empty)
    assert len(selected) == photos
    assert sum(not sample.annotations for sample in selected.samples) == photos - 4
    ids = [sample.image_id for sample in selected.samples]
    assert ids == sorted(ids)


@given(st.permutations(PHOTOS.samples), st.integers(0, 3))
def test_which_empty_photos_stay_does_not_depend_on_their_order(
    samples: list[Sample], keep_empty: int
) -> None:
    def kept(dataset: Dataset) -> set[str]:
        selected = select_classes(dataset, ["dog"], keep_empty=keep_empty)
        return {sample.image_path.name for sample in selected.samples}

    assert kept(replace(PHOTOS, samples=tuple(samples))) == kept(PHOTOS)


@given(st.lists(st.lists(st.sampled_from([PERSON, DOG, FRISBEE, PERSONS, DOGS]), max_size=4)))
def test_every_class_is_in_exactly_one_of_two_complementary_subsets(
    photos: list[list[Annotation]],
) -> None:
    dataset = dataset_of(*map(tuple, photos), ())
    pets = select_classes(dataset, ["dog", "frisbee"], keep_empty=None)
    people = select_classes(dataset, ["person"], keep_empty=None)
    for whole, first, second in zip(dataset.samples, pets.samples, people.samples, strict=True):
        parts = [
            (subset.categories.names[a.class_index], a.is_crowd)
            for subset, sample in ((pets, first), (people, second))
            for a in sample.annotations
        ]
        expected = [(PETS.names[a.class_index], a.is_crowd) for a in whole.annotations]
        assert sorted(parts) == sorted(expected)


def test_unknown_class_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownClassError, match=r"no class “dogs”\. Did you mean “dog”"):
        select_classes(PHOTOS, ["dogs"])


def test_nothing_left_is_an_error() -> None:
    without = replace(PHOTOS, samples=PHOTOS.samples[1:3])
    with pytest.raises(DatasetError, match="“pets” has no photo with dog or frisbee"):
        select_classes(without, ["dog", "frisbee"])
    assert len(select_classes(without, ["dog"], keep_empty=1)) == 1


def test_a_subset_can_be_written_and_read(tmp_path: Path, write_photo: Callable[..., None]) -> None:
    for sample in PHOTOS.samples:
        write_photo(tmp_path / sample.image_path, SIZE)
    there = [replace(s, image_path=tmp_path / s.image_path) for s in PHOTOS.samples]
    selected = select_classes(replace(PHOTOS, samples=tuple(there)), ["dog", "frisbee"])
    write_dataset(tmp_path / "out", {None: selected}, format="coco")
    back = load_dataset(tmp_path / "out")
    assert back.categories == Categories(("dog", "frisbee"), (18, 34))
    assert [
        [(a.class_index, a.is_crowd) for a in sample.annotations] for sample in back.samples
    ] == [[(0, False)], [(1, False), (0, False)], [(0, True)], [(0, True)]]


def test_dogs_and_frisbees_of_coco(shared_data: Path) -> None:
    coco = load_dataset(shared_data / "coco-mini")
    selected = select_classes(coco, ["dog", "frisbee"])
    found = [
        selected.categories.names[a.class_index] for s in selected.samples for a in s.annotations
    ]
    assert len(selected) == 7
    assert (found.count("dog"), found.count("frisbee")) == (8, 2)
    assert selected.categories.category_ids == (18, 34)
    persons = select_classes(coco, ["person"])
    assert sum(a.is_crowd for s in persons.samples for a in s.annotations) == 10
    assert len(select_classes(coco, ["person"], keep_empty=None)) == len(coco)
