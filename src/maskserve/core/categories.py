"""Class names and the three kinds of number that stand for them.

This is the only place that knows how they relate:

* ``class_index``: 0-based position in :attr:`Categories.names`; used everywhere inside;
* ``category_id``: the number in a COCO file, which may start anywhere and have gaps;
* ``label``: what torchvision's detection models use, 1-based because 0 is the background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from maskserve.core.errors import UnknownClassError

__all__ = ["Categories", "nearest_name"]


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` is most likely a misspelling of, if any is close."""
    matches = get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None


@dataclass(frozen=True, slots=True)
class Categories:
    """The classes of a data set or model.

    Attributes:
        names: Unique class names; the position is the class_index.
        category_ids: The same classes' numbers in COCO files, unique.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.category_ids):
            raise ValueError(f"{len(self.names)} names but {len(self.category_ids)} category_ids")
        for what, values in (("names", self.names), ("category_ids", self.category_ids)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} are not unique: {values}")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Categories:
        """Classes without a COCO file behind them; category_ids count from 1."""
        names = tuple(names)
        return cls(names, tuple(range(1, len(names) + 1)))

    def __len__(self) -> int:
        return len(self.names)

    def index_of(self, name: str) -> int:
        """class_index of a name.

        Raises:
            UnknownClassError: with the nearest known name and the list of all.
        """
        try:
            return self.names.index(name)
        except ValueError:
            nearest = nearest_name(name, self.names)
            guess = f"Did you mean “{nearest}”? " if nearest else ""
            raise UnknownClassError(
                f"There is no class “{name}”.", hint=f"{guess}Known: {', '.join(self.names)}."
            ) from None

    def index_of_id(self, category_id: int) -> int:
        """class_index of a COCO category_id; ValueError if it is not there."""
        return self.category_ids.index(category_id)

    def id_of(self, class_index: int) -> int:
        return self.category_ids[class_index]

    @staticmethod
    def label_of(class_index: int) -> int:
        return class_index + 1
