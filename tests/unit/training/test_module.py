"""What the optimiser does, on a model that takes no time."""

from __future__ import annotations

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from maskserve.core.errors import TrainingError
from maskserve.training import TrainSettings
from maskserve.training.data import Target
from maskserve.training.module import MaskRcnnModule

_NOTHING = {"example": 0, "masks": torch.zeros(0, 1, 1, dtype=torch.uint8)}


class _Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(4, 0.5)
        self.head = nn.Identity()


class _OneWeight(nn.Module):
    """Its loss is weight times what comes as a photo; every box belongs to an object."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.rpn, self.roi_heads = _Stage(), _Stage()

    def forward(self, photos: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        self.roi_heads.fg_bg_sampler([torch.ones(3) for _ in targets])
        return {"loss_mask": (self.weight * photos[0]).sum()}


class _Recorder(lightning.Callback):
    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,
        *_: object,
    ) -> None:
        self.weights.append(float(pl_module.model.weight))  # type: ignore[union-attr, arg-type]


def _fit(photos: list[float]) -> list[float]:
    recorder = _Recorder()
    module = MaskRcnnModule(_OneWeight(), TrainSettings(steps=len(photos), warmup_steps=0))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder],
    )
    batches: DataLoader[float] = DataLoader(
        photos,  # type: ignore[arg-type]
        batch_size=1,
        collate_fn=lambda values: ([torch.tensor(values)], [_NOTHING]),
    )
    trainer.fit(module, batches)
    return recorder.weights


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_whose_gradient_is_not_finite_changes_nothing(poison: float) -> None:
    weights = _fit([1.0, poison, 1.0])
    assert weights[0] < 1
    assert weights[1] == weights[0]
    assert weights[2] < weights[1]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_run_that_diverged_for_good_is_ended() -> None:
    with pytest.raises(TrainingError, match="50 steps in a row"):
        _fit([float("nan")] * 60)


def test_rate_warms_up_and_ends_at_zero() -> None:
    module = MaskRcnnModule(_OneWeight(), TrainSettings(steps=100, warmup_steps=10))
    rates = [module._rate_at(step) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)
