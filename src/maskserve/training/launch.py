"""Starting the processes of a training on this machine, without torchrun's command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from maskserve.core.errors import TrainingError
from maskserve.runtime.cpu_limit import cpu_limit

__all__ = ["start_processes"]


def start_processes(devices: int, command: Sequence[str]) -> int:
    """Run a command of maskserve once a device of this machine, as torchrun would.

    If one process fails, the others are ended.

    Args:
        devices: GPUs; processes on a machine without any.
        command: Words after ``maskserve``.

    Returns:
        The exit code: of the first process that failed and has said why, else 0.

    Raises:
        TrainingError: A process was killed.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    threads = max((cpu_limit() or torch.get_num_threads()) // devices, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=5,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "maskserve", *command)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise TrainingError(
                f"A process of the training was ended by {failure.signal_name()}.",
                hint="Add --resume to go on from the last validation.",
            ) from None
        return failure.exitcode
    except SignalException as received:
        return 128 + received.sigval
    return 0
