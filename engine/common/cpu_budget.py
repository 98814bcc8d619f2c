"""How many CPUs this process may use: the affinity mask and the quota of its control groups."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class CpuBudget:
    """What limits the CPUs of a process.

    Attributes:
        machine: logical CPUs of the machine.
        affinity: CPUs that the scheduler may put this process on.
        quota: CPUs' worth of time that the control groups grant, or None without a limit.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def threads(self) -> int | None:
        """Threads that fit in the budget, or None where nothing limits the process.

        A quota of 1.5 CPUs gives one thread: a second one would be stopped for half of its time.
        """
        if self.quota is None and self.affinity >= self.machine:
            return None
        granted = self.affinity if self.quota is None else min(self.affinity, int(self.quota))
        return max(1, granted)

    def __str__(self) -> str:
        limits = []
        if self.affinity < self.machine:
            limits.append(f"the affinity mask allows {self.affinity}")
        if self.quota is not None:
            limits.append(f"the control group grants the time of {self.quota:g}")
        said = f"{self.machine} CPUs"
        return f"{said}; {' and '.join(limits)}" if limits else f"{said}, no limit"


def cpu_budget(*, cgroups: Path = CGROUPS, proc: Path = PROC) -> CpuBudget:
    """Look at the limits of this process.

    Args:
        cgroups: where the control groups are mounted, version 1 or 2.
        proc: the folder `/proc`.
    """
    machine = os.cpu_count() or 1
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        affinity = machine
    return CpuBudget(machine=machine, affinity=affinity, quota=_quota(cgroups, proc))


def _quota(cgroups: Path, proc: Path) -> float | None:
    """The smallest quota of the process's groups and of all groups above them, in CPUs."""
    limits = []
    for controllers, group in _groups(proc):
        # In a container the group's path may lead nowhere here: its group is mounted as the root.
        for parent in (group, *group.parents):
            path = str(parent).lstrip("/")
            if controllers == "":  # version 2 has one hierarchy for all controllers
                limits += [_version_2(cgroups / path), _version_2(cgroups / "unified" / path)]
            elif "cpu" in controllers.split(","):
                limits += [_version_1(cgroups / name / path) for name in {"cpu", controllers}]
    return min((quota for quota in limits if quota is not None), default=None)


def _groups(proc: Path) -> list[tuple[str, PurePosixPath]]:
    """Controllers and path of each group of this process; version 2 names no controllers."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    fields = [line.split(":", 2) for line in lines]
    return [(f[1], PurePosixPath("/") / f[2].lstrip("/")) for f in fields if len(f) == 3]


def _version_1(folder: Path) -> float | None:
    quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return _ratio(quota, period)


def _version_2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float | None:
    """Quota over period in CPUs; None for "max", -1 and what is not a number."""
    try:
        result = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return result if result > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
