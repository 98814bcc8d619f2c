"""The machine that is measured on: its description, and how quiet it is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from retinart.benchmarks.timing.alternate import milliseconds
from retinart.engine.common.cpu import cpu_name, instruction_sets, int8_text
from retinart.engine.cuda.devices import Gpu, find_gpus
from retinart.engine.runtime.saturation import saturates

REST_S = 0.05  # between two runs, so that idle threads of the first one have stopped spinning
_PACKAGES = ("retinart", "openvino", "numpy", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a benchmark ran on.

    Attributes:
        flags: instruction sets that matter here.
        int8: how fast INT8 is with them.
        gpus, driver: the NVIDIA GPUs and the version of their driver.
        versions: of the packages that have a part in it.
        commit: of the checkout, with a note when files were changed.
    """

    cpu: str
    cpus: int | None
    flags: tuple[str, ...]
    int8: str | None = None
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    system: str
    python: str
    versions: dict[str, str]
    commit: str | None = None

    def rows(self) -> Iterator[tuple[str, str]]:
        """Names and values for people, without what is not known."""
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name == "versions":
                yield from value.items()
            elif name == "gpus":
                yield from (
                    ("gpu", f"{g.name}, compute capability {g.compute_capability}, CUDA {g.cuda}")
                    for g in value
                )
            elif value:
                yield name, " ".join(value) if isinstance(value, tuple) else str(value)


def describe(*packages: str) -> Machine:
    """This machine, with the versions of some more packages."""
    versions = {}
    for name in (*_PACKAGES, *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpus = tuple(find_gpus())
    return Machine(
        cpu=cpu_name(),
        cpus=os.cpu_count(),
        flags=tuple(sorted(instruction_sets())),
        int8=int8_text(instruction_sets(), saturates=saturates()),
        gpus=gpus,
        driver=_driver() if gpus else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
        commit=_commit() or None,
    )


def reference() -> float:
    """Milliseconds of a fixed workload, whose spread shows how quiet the machine is."""
    time.sleep(REST_S)
    x = np.ones((1024, 1024), np.float32)
    return milliseconds(lambda: (x @ x, x @ x, x @ x))


def _commit() -> str:
    """The commit of the checkout that tracks this file, or ""; it notes changed files."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent.resolve()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # another project may surround us
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"
