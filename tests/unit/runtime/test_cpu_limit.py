from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from maskserve.runtime.cpu_limit import cpu_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def limited(root: Path, *, cgroup: str = "0::/\n", folder: str = "", cpu_max: str) -> int | None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    group = root / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(cpu_max)
    return cpu_limit(root)


@pytest.mark.parametrize(
    ("cpu_max", "limit"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("800000 100000\n", None),
        ("1600000 100000\n", None),
        ("max 100000\n", None),
        ("", None),
        ("200000 0\n", None),
    ],
)
def test_limit_in_a_container(tmp_path: Path, cpu_max: str, limit: int | None) -> None:
    assert limited(tmp_path, cpu_max=cpu_max) == limit


def test_limit_of_a_service(tmp_path: Path) -> None:
    cgroup = "1:name=systemd:/ignored\n0::/system.slice/maskserve.service\n"
    folder = "system.slice/maskserve.service"
    assert limited(tmp_path, cgroup=cgroup, folder=folder, cpu_max="300000 100000\n") == 3


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path) is None
    assert limited(tmp_path, cgroup="4:cpu:/old\n", cpu_max="100000 100000\n") is None


def test_of_this_process() -> None:
    limit = cpu_limit()
    assert limit is None or 1 <= limit < 8
