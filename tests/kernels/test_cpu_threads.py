"""`usable_cpus` is what affinity and control groups allow, of both versions, in containers and outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron_iberis.kernels.cpu_threads import usable_cpus

ALL = 64


@pytest.fixture(autouse=True)
def _a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ALL)), raising=False)


def machine(root: Path, groups: str, **files: str) -> Path:
    """A root folder with this /proc/self/cgroup and, with __ for /, these files under /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "0::/user/job\n"
V1 = "9:name=systemd:/x\n4:cpuset:/job\n3:cpu,cpuacct:/user/job\n2:cpuacct:/job\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        pytest.param(V2, {"user/job/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param(V2, {"user/job/cpu.max": "max 100000\n"}, ALL, id="v2-without-a-quota"),
        pytest.param(V2, {"user/cpu.max": "300000 100000\n", "user/job/cpu.max": "max 100000\n"}, 3, id="v2-parent"),
        pytest.param(V2, {"cpu.max": "150000 100000\n"}, 1, id="v2-a-container-s-own-root-rounded-down"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 1, id="v2-less-than-one"),
        pytest.param("0::/\n", {"cpu.max": "9900000 100000\n"}, ALL, id="v2-more-than-there-are"),
        pytest.param("0::/../outside\n", {"cpu.max": "400000 100000\n"}, 4, id="v2-a-path-beyond-the-namespace"),
        pytest.param("0::/job\n", {"unified/job/cpu.max": "400000 100000\n"}, 4, id="v2-beside-v1"),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/user/job/cpu.cfs_quota_us": "500000\n",
                "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000\n",
            },
            5,
            id="v1",
        ),
        pytest.param(V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3, id="v1-container"),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/user/job/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000",
                "cpuset/job/cpu.cfs_quota_us": "100000",
            },
            ALL,
            id="v1-without-a-quota",
        ),
        pytest.param(V2, {"user/job/cpu.max": "rubbish\n"}, ALL, id="rubbish"),
        pytest.param(V2, {"user/job/cpu.max": "1 0\n"}, ALL, id="a-period-of-zero"),
        pytest.param(V2, {}, ALL, id="nothing-there"),
        pytest.param("rubbish\n", {}, ALL, id="not-understood"),
    ],
)
def test_the_quota_is_found(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    assert usable_cpus(machine(tmp_path, groups, **files)) == expected


def test_affinity_counts_where_it_allows_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_cpus(machine(tmp_path, V2, **{"user/job/cpu.max": "800000 100000\n"})) == 2


def test_without_control_groups_and_affinity_all_cpus_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus(tmp_path) == 7
