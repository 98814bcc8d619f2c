"""The machine under a measurement: what it is, and how quiet it is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.cpu import cpu_name, instruction_sets, int8_text
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.runtime.saturation import saturates

REST_S = 0.05  # between two runs, so that idle threads of the one have stopped spinning
PACKAGES = ("retinart", "openvino", "numpy", "opencv-python-headless")


def describe(*packages: str) -> dict[str, Any]:
    """CPU, GPUs and their driver, system, versions, and in a checkout the commit, as JSON types."""
    versions = {}
    for name in (*PACKAGES, *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit()
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "flags": sorted(instruction_sets()),
        "int8": int8_text(instruction_sets(), saturates=saturates()),
        **_gpus(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
        **({"commit": commit} if commit else {}),
    }


def reference() -> float:
    """Milliseconds of a fixed piece of arithmetic: its spread tells how quiet the machine is."""
    time.sleep(REST_S)
    x = np.ones((1024, 1024), np.float32)
    start = time.perf_counter()
    for _ in range(3):
        x @ x
    return 1000 * (time.perf_counter() - start)


def _commit() -> str:
    """The commit of the checkout that this file is tracked in, if it is; changes are said."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent.resolve()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not some other project's
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _gpus() -> dict[str, Any]:
    """The GPUs and their driver's version; nothing where there is none."""
    gpus = [{k: v for k, v in asdict(gpu).items() if k != "index"} for gpu in find_gpus()]
    if not gpus:
        return {}
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return {"gpus": gpus, "driver": found[0] if found else "unknown"}
