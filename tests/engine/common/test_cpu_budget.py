"""The CPU budget: quotas of made-up control groups, and a real one where this machine allows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinart.engine import detector
from retinart.engine.common.cpu_budget import CpuBudget, cpu_budget
from retinart.engine.detector import Detector
from retinart.engine.runtime.openvino_runner import OpenVINORunner

BUDGET = """
from retinart.engine.common.cpu_budget import cpu_budget
print(cpu_budget().threads, cpu_budget())
"""


def tree(folder: Path, membership: str, files: dict[str, str]) -> CpuBudget:
    """The budget of a process with this /proc/self/cgroup, in control groups with these files."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return cpu_budget(cgroups=groups, proc=proc)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5, id="version 2"),
        pytest.param("0::/a/b\n", {"a/cpu.max": "50000 100000"}, 0.5, id="of a group above"),
        pytest.param(
            "0::/a/b\n",
            {"a/cpu.max": "400000 100000", "a/b/cpu.max": "200000 100000"},
            2.0,
            id="the smallest counts",
        ),
        pytest.param("0::/a\n", {"a/cpu.max": "max 100000\n"}, None, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "300000 100000\n"}, 3.0, id="a container's root"),
        pytest.param(
            "0::/docker/1f\n", {"cpu.max": "100000 100000"}, 1.0, id="a path that leads nowhere"
        ),
        pytest.param(
            "4:cpu,cpuacct:/job\n0::/\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "70000\n",
             "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            0.7,
            id="version 1",
        ),
        pytest.param(
            "1:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            None,
            id="version 1 without a limit",
        ),
        pytest.param(
            "2:memory:/x\n1:cpu:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000",
             "unified/cpu.max": "max 100000"},
            2.5,
            id="both versions",
        ),
        pytest.param("0::/a\n", {"a/cpu.max": "lots of it\n"}, None, id="not a number"),
        pytest.param("0::/a\n", {"a/cpu.max": "100 0\n"}, None, id="a period of zero"),
        pytest.param("rubbish\n", {}, None, id="an unreadable membership"),
    ],
)  # fmt: skip
def test_quotas(
    membership: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert tree(tmp_path, membership, files).quota == quota


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert cpu_budget(cgroups=tmp_path / "none", proc=tmp_path / "none").quota is None


@pytest.mark.parametrize(
    ("machine", "affinity", "quota", "threads"),
    [
        (8, 8, None, None),  # the runtime chooses
        (8, 3, None, 3),
        (8, 8, 2.0, 2),
        (8, 8, 1.5, 1),
        (8, 8, 0.5, 1),
        (8, 2, 4.0, 2),
        (8, 8, 64.0, 8),
    ],
)
def test_threads(machine: int, affinity: int, quota: float | None, threads: int | None) -> None:
    budget = CpuBudget(machine=machine, affinity=affinity, quota=quota)
    assert budget.threads == threads
    assert ("no limit" in str(budget)) == (threads is None)


def test_the_text_names_the_limits() -> None:
    budget = CpuBudget(machine=8, affinity=4, quota=2.5)
    assert str(budget) == (
        "8 CPUs; the affinity mask allows 4 and the control group grants the time of 2.5"
    )


def test_a_detector_keeps_to_the_budget(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO says how many threads it was given; an explicit number wins."""
    one = CpuBudget(machine=64, affinity=1, quota=None)
    monkeypatch.setattr(detector, "cpu_budget", lambda: one)
    for threads, expected in ((None, 1), (2, 2)):
        with Detector(model_path, threads=threads) as detect:
            assert _threads(detect) == expected


def _threads(detect: Detector) -> int:
    assert isinstance(detect.runner, OpenVINORunner)
    return int(detect.runner.compiled(1).get_property("INFERENCE_NUM_THREADS"))


@pytest.fixture
def quota_of_half_a_cpu() -> Iterator[Path]:
    """The file that takes a process into a control group with a quota; version 1 or 2."""
    made = []
    for parent, limits in (
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 100000"}),
        (Path("/sys/fs/cgroup/cpu"),
         {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
    ):  # fmt: skip
        group = parent / f"retinart-test-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            for name, value in limits.items():
                if not (group / name).exists():
                    raise OSError("not this version")
                (group / name).write_text(value)
        except OSError:
            continue
        yield group / "cgroup.procs"
        break
    else:
        pytest.skip("this machine allows no control group with a quota")
    for group in made:
        group.rmdir()


def test_a_real_quota(quota_of_half_a_cpu: Path) -> None:
    into = f"import os; open({str(quota_of_half_a_cpu)!r}, 'w').write(str(os.getpid()))\n"
    ran = subprocess.run(
        [sys.executable, "-c", into + BUDGET], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("1 ") and "grants the time of 0.5" in ran.stdout


def test_a_real_affinity_mask() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("this process has one CPU already")
    into = f"import os; os.sched_setaffinity(0, [{cpus[0]}])\n"
    ran = subprocess.run(
        [sys.executable, "-c", into + BUDGET], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("1 ") and "the affinity mask allows 1" in ran.stdout
