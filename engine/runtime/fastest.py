"""What a file's float layers are computed in, chosen by time, within the file's precision."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np

from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.files import sha256
from retinart.engine.common.timing import StageClock
from retinart.engine.common.user_cache import Remembered
from retinart.engine.model.info import Compute, ModelInfo, Thresholds
from retinart.engine.runtime.openvino_api import has_bf16, load_openvino
from retinart.engine.runtime.openvino_runner import OpenVINORunner
from retinart.engine.runtime.options import OpenVINOOptions

_RUNS = 4  # of each, in turns, after a first one
_MARGIN = 0.95  # what is less exact must be faster by more than this


def fastest_compute(
    path: Path, info: ModelInfo, thresholds: Thresholds, options: OpenVINOOptions
) -> Compute:
    """The type of float layers that takes the least time here and loses no more than the file.

    An FP32 or FP16 file is computed in FP32, since bf16 has fewer bits than both. The layers around
    an INT8 file's convolutions may take bf16, whose error is far below INT8's. Both are timed once,
    and the answer is kept for the file, CPU, version of OpenVINO, device and threads.
    """
    if not info.precision.startswith("int8") or not has_bf16(options.device):
        return "fp32"
    known = Remembered("compute")
    key = (
        sha256(path), json.dumps(info.resize.canvas), options.device, options.threads,
        options.throughput, load_openvino().__version__, cpu_name(), *sorted(instruction_sets()),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    )  # fmt: skip
    if (kept := known.get(*key)) in ("fp32", "bf16"):
        return "bf16" if kept == "bf16" else "fp32"
    found: Compute = "bf16" if _bf16_is_faster(path, info, thresholds, options) else "fp32"
    known.set(found, *key)
    return found


def _bf16_is_faster(
    path: Path, info: ModelInfo, thresholds: Thresholds, options: OpenVINOOptions
) -> bool:
    kinds: tuple[Compute, ...] = ("fp32", "bf16")
    runners = [
        OpenVINORunner(path, info, thresholds, dataclasses.replace(options, compute=kind))
        for kind in kinds
    ]
    frame = np.full((*info.resize.canvas_for([(480, 640)]), 3), 114, np.uint8)
    best = [float("inf")] * len(runners)
    try:
        prepared = [runner.prepare([frame]) for runner in runners]
        for turn in range(_RUNS + 1):
            for i, work in enumerate(prepared):
                start = time.perf_counter()
                work.submit(StageClock()).result()
                if turn:
                    best[i] = min(best[i], time.perf_counter() - start)
    finally:
        for runner in runners:
            runner.close()
    return best[1] < _MARGIN * best[0]
