from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from maskserve.core import Preprocess
from maskserve.core.errors import SettingsError
from maskserve.models import ResNetDesign
from maskserve.models.start import Demands
from maskserve.training import TrainSettings, read_settings
from maskserve.training.config import adopt_start, settings_sha256

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
    name = re.sub("-(start|further|prints)$", "", recipe.stem)
    assert read_settings(recipe, {}).name == name


DEMANDS = Demands(
    "resnet50",
    ResNetDesign(stride_in_1x1=True),
    Preprocess(channel_order="bgr", short_side_px=800, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)),
    "its config",
)


def test_initial_weights_decide_network_and_pixels_but_not_the_size() -> None:
    settings = TrainSettings(preprocess=Preprocess(short_side_px=320), init="model_final.pth")
    adopted = adopt_start(settings, DEMANDS)
    assert (adopted.model, adopted.design) == (DEMANDS.model, DEMANDS.design)
    assert adopted.preprocess.channel_order == "bgr"
    assert adopted.preprocess.mean == (1.0, 2.0, 3.0)
    assert adopted.preprocess.short_side_px == 320
    assert adopt_start(adopted, DEMANDS) == adopted
    assert TrainSettings.model_validate_json(adopted.model_dump_json()) == adopted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "resnet101"}, r"model is set to resnet101.*with resnet50.*Leave model out"),
        ({"preprocess": {"channel_order": "rgb"}}, r"preprocess.channel_order is set to rgb"),
        ({"preprocess": {"std": [58, 57, 57]}}, r"preprocess.std is set to"),
        ({"design": {"depth": 101}}, r"design is set to another design"),
    ],
)
def test_settings_that_contradict_initial_weights_are_refused(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        adopt_start(TrainSettings.model_validate(values), DEMANDS)


def test_a_misspelt_key_of_a_resnets_design_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[design]\ndepth = 50\nproposalz = 300\n")
    with pytest.raises(SettingsError, match=r"“design.proposalz”.*Did you mean “proposals”"):
        read_settings(tmp_path / "recipe.toml", {})


@pytest.mark.parametrize(
    ("values", "learns"),
    [
        ({}, False),
        ({"init": "none"}, True),
        ({"init": "none", "batch_norm": "fixed"}, False),
        ({"init": "r50.safetensors", "batch_norm": "learned"}, True),
    ],
)
def test_statistics_are_learned_where_none_are_loaded(
    values: dict[str, Any], *, learns: bool
) -> None:
    assert TrainSettings.model_validate(values).learns_statistics is learns
