"""Every module says what is public, in ``__all__``, and says so truthfully."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "maskserve"


def modules() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = list(modules())


def source_of(module: str) -> ast.Module:
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def public_names(module: str) -> list[str] | None:
    """The literal ``__all__`` of a module; None if there is none."""
    for node in source_of(module).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                names: list[str] = ast.literal_eval(value)
                return names
    return None


def isort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions, as ruff's RUF022 sorts."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_listed_and_sorted(module: str) -> None:
    names = public_names(module)
    assert names is not None, f"{module} has no __all__"
    assert names == sorted(names, key=isort_key)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_exist(module: str) -> None:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")
    for name in public_names(module) or []:
        assert hasattr(loaded, name), f"{module}.__all__ names {name}, which is not there"


@pytest.mark.parametrize("module", MODULES)
def test_what_is_not_listed_has_an_underscore(module: str) -> None:
    """But for functions that only a decorator needs: routes and commands."""
    defined = [
        node.name
        for node in source_of(module).body
        if isinstance(node, ast.ClassDef)
        or (isinstance(node, ast.FunctionDef) and not node.decorator_list)
    ]
    public = {name for name in defined if not name.startswith("_")}
    assert public <= set(public_names(module) or [])
