"""What several processes share, and how; tests/e2e/test_distributed.py runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from maskserve.core.errors import DatasetError, MaskserveError, SettingsError
from maskserve.models.backbones import FixedBatchNorm2d
from maskserve.training import TrainSettings, photos, processes, run
from maskserve.training.data import StepSampler
from maskserve.training.norms import JointBatchNorm2d, join_norms
from maskserve.training.record import read_record
from maskserve.training.sampling import ExampleSampler


@given(
    processes=st.integers(1, 8),
    batch_of_each=st.integers(1, 4),
    steps=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_together_the_processes_see_what_one_would(
    processes: int, batch_of_each: int, steps: int, epoch: int
) -> None:
    batch = processes * batch_of_each
    samplers = [
        StepSampler(steps * batch, rank=rank, processes=processes) for rank in range(processes)
    ]
    alone = StepSampler(steps * batch)
    for sampler in (alone, *samplers):
        sampler.set_epoch(epoch)
    seen = [list(sampler) for sampler in samplers]
    assert all(len(own) == len(sampler) for own, sampler in zip(seen, samplers, strict=True))
    for step in range(steps):
        own = slice(step * batch_of_each, (step + 1) * batch_of_each)
        at_once = sorted(number for numbers in seen for number in numbers[own])
        assert at_once == list(alone)[step * batch : (step + 1) * batch]


class _World:
    """A number of processes, one after the other."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int) -> None:
        self._patch = patch
        self._count = count
        patch.setattr(processes, "process_count", lambda: count)

    def each(self, work: Callable[[], Any]) -> list[Any]:
        results = []
        for rank in range(self._count):
            self._patch.setattr(processes, "rank", lambda rank=rank: rank)
            results.append(work())
        return results


@given(count=st.integers(1, 5), items=st.integers(0, 17))
def test_what_is_shared_comes_back_whole_and_in_order(count: int, items: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = _World(patch, count)
        shares = world.each(lambda: list(processes.share(items)))
        assert len({len(share) for share in shares}) == 1
        patch.setattr(processes, "_all_of", lambda _: shares)
        assert processes.gather(shares[0], items) == list(range(items))


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("failing", [0, 2])
def test_if_one_fails_the_first_of_the_machine_says_so(
    monkeypatch: pytest.MonkeyPatch, rank: int, failing: int
) -> None:
    error = DatasetError("There is no folder here.")
    _World(monkeypatch, 3)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(
        processes, "_all_of", lambda _: [error if other == failing else None for other in range(3)]
    )

    def work() -> str:
        if rank == failing:
            raise error
        return "done"

    with pytest.raises((MaskserveError, SystemExit)) as caught:
        processes.together(work)
    assert (caught.value is error) == (rank == 0)
    monkeypatch.setattr(processes, "_all_of", lambda _: [None] * 3)
    assert processes.together(lambda: "done") == "done"


def _labels() -> list[torch.Tensor]:
    """For three photos: many of both, few positives, none."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 2, (300,), generator=generator).float()
    return [labels, torch.cat([torch.ones(2), torch.zeros(90)]), torch.zeros(50)]


def test_what_is_drawn_for_an_example_depends_on_its_number_alone() -> None:
    standard = BalancedPositiveNegativeSampler(64, 0.25)
    sampler, other_sampler, other_run = (
        ExampleSampler(standard, seed) for seed in ((0, 2), (0, 3), (1, 2))
    )
    photos = _labels()
    for each in (sampler, other_sampler, other_run):
        each.examples = (7, 8, 9)
    together = sampler(photos)
    for name, other in (("sampler", other_sampler), ("run", other_run)):
        assert not torch.equal(other(photos)[1][0], together[1][0]), name
    sampler.examples = (9,)
    torch.rand(3)
    (positive,), (negative,) = sampler(photos[2:])
    assert torch.equal(positive, together[0][2])
    assert torch.equal(negative, together[1][2])


def test_as_many_are_drawn_as_by_torchvision_and_counted() -> None:
    standard = BalancedPositiveNegativeSampler(64, 0.25)
    sampler = ExampleSampler(standard, (0, 2))
    sampler.examples = (0, 1, 2)
    drawn, theirs = sampler(_labels()), standard(_labels())
    for masks, their_masks in zip(drawn, theirs, strict=True):
        assert [int(m.sum()) for m in masks] == [int(m.sum()) for m in their_masks]
    assert int(sampler.positive) == 16 + 2
    assert int(sampler.drawn) == 64 + 64 + 50


def test_a_batch_that_does_not_come_out_even_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "process_count", lambda: 2)
    run._check_batch_size(TrainSettings(batch_size=4))
    with pytest.raises(SettingsError, match="batch_size is 3, which 2 processes") as caught:
        run._check_batch_size(TrainSettings(batch_size=3))
    assert "multiple" in (caught.value.hint or "")


def test_flags_and_torchrun_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for fine in ((None, None), (1, 1), (2, 1)):
        processes.check_processes(*fine)
    with pytest.raises(SettingsError, match="has 2 GPUs"):
        processes.check_processes(3, None)
    with pytest.raises(SettingsError, match="needs torchrun") as caught:
        processes.check_processes(4, 2)
    assert "torchrun --nnodes 2 --nproc-per-node 4" in (caught.value.hint or "")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    for also_fine in ((None, None), (4, 2), (4, None)):
        processes.check_processes(*also_fine)
    with pytest.raises(SettingsError, match="--nodes is 1, but torchrun started 2"):
        processes.check_processes(4, 1)


def test_another_data_set_on_another_machine_is_noticed(
    monkeypatch: pytest.MonkeyPatch, quick_run: Any, shapes_folder: Any, quick: TrainSettings
) -> None:
    record = read_record(quick_run)
    own = photos.load_photos(quick, shapes_folder)
    monkeypatch.setattr(photos, "is_first", lambda: False)
    photos.compare_photos(record, own, shapes_folder)
    others = photos.load_photos(quick.model_copy(update={"seed": 3}), shapes_folder)
    with pytest.raises(MaskserveError, match="holds other photos"):
        photos.compare_photos(record, others, shapes_folder)


def test_joint_norms_compute_what_batch_norm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskserve.training.norms._summed", torch.clone)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    joint = JointBatchNorm2d(norm).double()
    outcomes = []
    for layer in (norm, joint):
        features = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(1)).double()
        features.requires_grad_()
        out = layer(features)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        evaluated = layer.eval()(features.detach())
        outcomes.append((out, features.grad, layer.weight.grad, evaluated, *layer.buffers()))
    for ours, theirs in zip(outcomes[1], outcomes[0], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_only_norms_that_learn_their_statistics_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def model() -> nn.Sequential:
        learning = FixedBatchNorm2d(2)
        learning.fixed = False
        return nn.Sequential(nn.BatchNorm2d(2), nn.Sequential(FixedBatchNorm2d(2), learning))

    alone, joint = model(), model()
    join_norms(alone)
    monkeypatch.setattr("maskserve.training.norms.process_count", lambda: 2)
    join_norms(joint)
    kinds = [
        [type(layer) for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)]
        for made in (alone, joint)
    ]
    assert kinds[0] == [nn.BatchNorm2d, FixedBatchNorm2d, FixedBatchNorm2d]
    assert kinds[1] == [JointBatchNorm2d, FixedBatchNorm2d, JointBatchNorm2d]
    assert joint.state_dict().keys() == alone.state_dict().keys()
