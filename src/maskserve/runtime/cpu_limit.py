"""How many CPUs a container may use."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

__all__ = ["cpu_limit"]


def cpu_limit(root: Path = Path("/")) -> int | None:
    """The limit of CPU time of this process' control group, as a number of CPUs.

    Docker's ``--cpus``, Kubernetes' ``limits.cpu`` and systemd's ``CPUQuota`` set it. A program
    that starts a thread for every CPU that it sees, as OpenVINO does, spends its time on all of
    them at once, and then waits for the next period.

    Args:
        root: Where ``proc`` and ``sys`` are.

    Returns:
        Rounded up; None if there is no limit below the CPUs that the process may run on anyway, or
        none of version 2 of the interface,
        https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
        limit = ceil(int(quota) / int(period))
    except (OSError, StopIteration, ValueError, ZeroDivisionError):  # “max” for a quota included
        return None
    return limit if limit < len(os.sched_getaffinity(0)) else None
