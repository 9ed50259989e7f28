from __future__ import annotations

from collections.abc import Iterator

from maskserve.core import errors
from maskserve.core.errors import DatasetError, DatasetProblem, MaskserveError


def all_kinds(kind: type[MaskserveError] = MaskserveError) -> Iterator[type[MaskserveError]]:
    for child in kind.__subclasses__():
        yield child
        yield from all_kinds(child)


def test_every_kind_has_a_code_and_a_title_of_its_own() -> None:
    kinds: list[type[MaskserveError]] = [MaskserveError, *all_kinds()]
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert len({kind.title for kind in kinds}) == len(kinds)


def test_every_kind_is_drawn_in_the_tree_at_the_top() -> None:
    assert errors.__doc__
    drawn = set(errors.__doc__.replace("├──", " ").replace("└──", " ").split())
    assert {kind.__name__ for kind in all_kinds()} <= drawn


def test_the_hint_follows_the_message() -> None:
    assert str(MaskserveError("It broke.", hint="Mend it.")) == "It broke. Mend it."


def test_a_data_set_error_lists_its_problems_but_not_endlessly() -> None:
    problems = [DatasetProblem(f"a.json region {i}", "has no area") for i in range(25)]
    lines = str(DatasetError("25 problems:", problems=problems)).splitlines()
    assert lines[:2] == ["25 problems:", "  a.json region 0: has no area"]
    assert lines[-1] == "  … and 5 more"
