"""The processes of a training, one a device, which torchrun has started.

Rank 0, the first of them, owns the run folder and talks to people. Everything here does the
obvious for a training of a single process, which joins nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from maskserve.core.errors import MaskserveError, SettingsError, TrainingError

__all__ = [
    "check_processes",
    "first_alone",
    "from_first",
    "gather",
    "is_first",
    "join_processes",
    "process_count",
    "rank",
    "share",
    "started_by_torchrun",
    "together",
]

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1


def started_by_torchrun() -> bool:
    """Whether this is one of the processes of a training, and not the command of a person."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def check_processes(devices: int | None, nodes: int | None) -> None:
    """Compare what was asked for with what there is.

    Raises:
        SettingsError: There are fewer GPUs than devices; or torchrun started another number of
            processes, or has to be used for several nodes.
    """
    if started_by_torchrun():
        for flag, wanted, variable in (
            ("devices", devices, "LOCAL_WORLD_SIZE"),
            ("nodes", nodes, "GROUP_WORLD_SIZE"),
        ):
            if wanted not in (None, int(os.environ[variable])):
                raise SettingsError(
                    f"--{flag} is {wanted}, but torchrun started {os.environ[variable]}.",
                    hint=f"Leave --{flag} out: under torchrun it follows from --nproc-per-node and "
                    "--nnodes.",
                )
    elif nodes not in (None, 1):
        raise SettingsError(
            f"--nodes {nodes} needs torchrun, by which the machines find each other.",
            hint=f"On each: torchrun --nnodes {nodes} --nproc-per-node {devices or 1} "
            "--rdzv-backend c10d --rdzv-endpoint FIRST_MACHINE:29500 -m maskserve train …",
        )
    elif torch.cuda.is_available() and (devices or 1) > torch.cuda.device_count():
        raise SettingsError(
            f"--devices is {devices}, but this machine has {torch.cuda.device_count()} GPUs.",
            hint="Set CUDA_VISIBLE_DEVICES= to train on its CPUs.",
        )


@contextmanager
def join_processes() -> Iterator[None]:
    """Around a training: the processes that torchrun started find each other.

    Objects travel over gloo, and so do gradients on CPUs; on GPUs they go over NCCL.

    Raises:
        TrainingError: Another process has ended.
    """
    if not started_by_torchrun():
        yield
        return
    if sys.platform == "linux":  # elsewhere, processes outlive a torchrun that is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except RuntimeError as error:
        if "gloo/transport" in str(error) or isinstance(error, distributed.DistError):
            raise TrainingError(
                f"Process {rank()} cannot go on: another process of the training has ended."
            ) from error
        raise
    finally:
        distributed.destroy_process_group()


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    return rank() == 0


def from_first(value: T) -> T:
    """What the first process has given, in every process."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def together(work: Callable[[], T]) -> T:
    """Do something that may fail; all go on, or none does.

    Args:
        work: Without calls to other processes in it.

    Raises:
        MaskserveError: It failed in one of them. The first process of each machine says so, and
            the others exit without a word.
    """
    own: MaskserveError | None = None
    try:
        result = work()
    except MaskserveError as error:
        own = error
    failures = [failure for failure in _all_of(own) if failure is not None]
    if not failures:
        return result
    if process_count() > 1 and int(os.environ["LOCAL_RANK"]) > 0:
        sys.exit()
    raise own or failures[0]


def first_alone(work: Callable[[], T]) -> T:
    """Do something in the first process, and give its result to all.

    Raises:
        MaskserveError: As :func:`together`.
    """
    return from_first(cast(T, together(work if is_first() else lambda: None)))


def share(count: int) -> range | list[int]:
    """The numbers below ``count`` that are this process's, so that all have as many.

    They are dealt out in turn; where they do not come out even, the first ones are done twice.
    """
    rounds = -(-count // process_count())
    return [number % count for number in range(rank(), rounds * process_count(), process_count())]


def gather(results: Sequence[T], count: int) -> list[T]:
    """Put the results of :func:`share` together: one for each number, in order."""
    return [result for in_turn in zip(*_all_of(results), strict=True) for result in in_turn][:count]


def _all_of(value: T) -> list[T]:
    """One value of each process."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * process_count()
    distributed.all_gather_object(values, value)
    return values
