from __future__ import annotations

from pathlib import Path

import pytest

from maskserve.core.errors import SettingsError
from maskserve.training import TrainSettings, read_settings
from maskserve.training.config import settings_sha256

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = _write(tmp_path, "steps = 7\nseed = 3\n[augment]\npaste = 0.0\n")
    settings = read_settings(config, {"seed": 9, "init": None})
    assert (settings.steps, settings.seed, settings.augment.paste) == (7, 9, 0.0)
    assert settings.init == TrainSettings().init


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learningrate = 1.0", "Did you mean “learning_rate”"),
        ("[augment]\ncrop = 64", "Did you mean “crop_px”"),
        ("[preprocess]\nshort_side = 64", "Did you mean “short_side_px”"),
        ("[design]\nproposal = 9", "Did you mean “proposals”"),
        ("[backgrounds]\nfolder = 'x'\nshares = 1", "Did you mean “share”"),
        ("[design]\nfirst_stride = 8", "strides 8 to 64 are 4 levels"),
        ("steps = 0", r"steps in .*recipe.toml: .*greater than or equal to 1.*found 0"),
        ("steps = ", "is not a TOML file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        read_settings(_write(tmp_path, text), {})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        read_settings(tmp_path / "nowhere.toml", {})


@pytest.mark.parametrize(
    ("steps", "every", "epochs"), [(10, 250, 1), (600, 250, 2), (1000, 250, 4), (7, 2, 4)]
)
def test_every_step_lies_before_a_validation(steps: int, every: int, epochs: int) -> None:
    settings = TrainSettings(steps=steps, validate_every=every)
    assert settings.epochs == epochs
    assert steps <= settings.epochs * settings.steps_per_epoch < steps + epochs


def test_hash_tells_settings_apart() -> None:
    assert settings_sha256(TrainSettings()) == settings_sha256(TrainSettings(seed=0))
    assert settings_sha256(TrainSettings()) != settings_sha256(TrainSettings(seed=1))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipes_are_valid(recipe: Path) -> None:
    assert read_settings(recipe, {}).name == recipe.stem
