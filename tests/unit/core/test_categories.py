from __future__ import annotations

import pytest

from maskserve.core import Categories
from maskserve.core.errors import UnknownClassError


def test_category_ids_may_have_gaps() -> None:
    categories = Categories(("cat", "dog"), (17, 90))
    assert categories.index_of_id(90) == categories.index_of("dog") == 1
    assert categories.id_of(0) == 17


def test_ids_count_from_1_without_a_coco_file() -> None:
    assert Categories.from_names(["cat", "dog"]).category_ids == (1, 2)


def test_label_0_is_left_to_the_background() -> None:
    assert Categories.label_of(0) == 1


def test_an_unknown_class_names_the_nearest_and_all() -> None:
    with pytest.raises(UnknownClassError) as caught:
        Categories.from_names(["balloon", "kite"]).index_of("baloon")
    assert "Did you mean “balloon”?" in str(caught.value)
    assert "balloon, kite" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "ids"), [(("cat", "cat"), (1, 2)), (("cat", "dog"), (1, 1)), (("cat",), (1, 2))]
)
def test_names_and_ids_are_unique_and_as_many(names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"names|category_ids"):
        Categories(names, ids)
