"""The weights that are kept: averaged over the steps, mixed with the initial ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from maskserve.core.errors import SettingsError
from maskserve.models.checkpoint import read_weights, write_weights
from maskserve.training import TrainSettings, train
from maskserve.training.averaging import KeptWeights
from maskserve.training.record import read_validation
from maskserve.training.validator import Validator

SHARE = 0.25
HEAD_SIZES = {"weight": (16,), "bias": ()}
"""Of a class's scores in the quick model, by tensor."""


def _weights(folder: Path) -> dict[str, Tensor]:
    weights = read_weights(folder / "weights.safetensors")
    return {name: value for name, value in weights.items() if value.is_floating_point()}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, quick_run: Path) -> Path:
    """A run that may be deleted."""
    return Path(shutil.copytree(quick_run, tmp_path_factory.mktemp("earlier") / "run"))


@pytest.fixture(scope="module")
def settings(quick: TrainSettings, earlier: Path) -> TrainSettings:
    init = str(earlier / "weights.safetensors")
    return quick.model_copy(update={"init": init, "seed": 1, "split_seed": 0})


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path, settings: TrainSettings
) -> Path:
    """It keeps nothing of the initial weights."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    train(settings, data=shapes_folder, out=out)
    return out


def test_the_initial_weights_keep_their_share_also_over_a_kill(
    earlier: Path,
    plain: Path,
    tmp_path: Path,
    shapes_folder: Path,
    settings: TrainSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    initial, learned = _weights(earlier), _weights(plain)
    assert any(not initial[name].equal(learned[name]) for name in initial)
    mixed = settings.model_copy(update={"initial_share": SHARE})

    out = tmp_path / "mixed"
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "_measure", _kill_at_the_second(Validator._measure))
        with pytest.raises(_KilledError):
            train(mixed, data=shapes_folder, out=out)
    assert read_validation(out).step == 1
    shutil.rmtree(earlier)
    train(mixed, data=shapes_folder, out=out, resume=True)

    kept = _weights(out)
    assert kept.keys() == initial.keys()
    for name, value in kept.items():
        expected = (1 - SHARE) * learned[name] + SHARE * initial[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


class _KilledError(Exception):
    """The training ends here, with a checkpoint of its first step."""


def _kill_at_the_second(measure: Any) -> Any:
    def measure_once(self: Any, model: Any, step: int, *args: Any) -> Any:
        if step > 1:
            raise _KilledError
        return measure(self, model, step, *args)

    return measure_once


def test_a_validation_leaves_weights_and_average_as_they_were() -> None:
    module, trainer = _Line(), lightning.Trainer(logger=False, enable_progress_bar=False)
    kept = KeptWeights(steps=4, initial_share=SHARE)
    kept.setup(trainer, module, "fit")  # the initial weight and the average are 1
    module.weight.data.fill_(2.0)
    kept.on_validation_epoch_start(trainer, module)
    assert module.weight.item() == 1.0
    kept.on_validation_epoch_end(trainer, module)
    assert module.weight.item() == 2.0

    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    kept.on_save_checkpoint(trainer, module, checkpoint)
    assert checkpoint["state_dict"]["weight"].item() == 1.0
    checkpoint["state_dict"]["weight"].fill_(3.0)  # as if the average had moved
    kept.on_load_checkpoint(trainer, module, checkpoint)
    for _ in range(2):
        kept.on_validation_epoch_start(trainer, module)
        assert module.weight.item() == (1 - SHARE) * 3.0 + SHARE * 1.0
        kept.on_validation_epoch_end(trainer, module)
        assert module.weight.item() == 2.0


class _Line(lightning.LightningModule):
    """A model of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))


@pytest.mark.parametrize("starts_from_other_heads", [False, True])
def test_nothing_is_mixed_with_random_weights(
    quick: TrainSettings,
    quick_run: Path,
    shapes_folder: Path,
    tmp_path: Path,
    starts_from_other_heads: bool,
) -> None:
    settings = quick.model_copy(update={"initial_share": SHARE})
    if starts_from_other_heads:
        weights = read_weights(quick_run / "weights.safetensors")
        head = "roi_heads.box_predictor.cls_score"
        weights |= {f"{head}.{part}": torch.zeros(7, *size) for part, size in HEAD_SIZES.items()}
        write_weights(tmp_path / "other.safetensors", weights)
        settings = settings.model_copy(update={"init": str(tmp_path / "other.safetensors")})
    with pytest.raises(SettingsError, match=r"initial_share is 0.25, but not the whole model"):
        train(settings, data=shapes_folder, out=tmp_path / "run")
    assert not (tmp_path / "run" / "settings.json").exists()
