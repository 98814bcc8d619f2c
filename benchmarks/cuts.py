"""An exported file cut at two places, to see what the selection of candidates costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinart.benchmarks.timing.workers import Engine, Run
from retinart.engine.media.images import Image
from retinart.engine.model.info import CANDIDATES, INPUT, read_info
from retinart.engine.runtime.openvino_api import find_tensor, load_openvino


@dataclass(frozen=True, kw_only=True)
class RetinartCuts:
    """An exported file up to the raw heads and up to the candidates, each timed in turn.

    The second one less the first is not all that the candidates cost: raw heads are outputs, which
    OpenVINO copies into plain layout. So what the profile says of the candidates' nodes, and of the
    changes of layout before them, is summed as `selection`.
    """

    model: Path
    heads: tuple[str, ...]
    threads: int

    def open(self) -> Engine:
        return _RetinartCuts(self)


class _RetinartCuts:
    """Two compiled graphs in one process; the one that goes first alternates."""

    def __init__(self, recipe: RetinartCuts) -> None:
        openvino = load_openvino()
        core = openvino.Core()
        self._info = read_info(recipe.model)
        assert self._info.resize.canvas is not None
        whole = core.read_model(recipe.model)
        whole.reshape({INPUT: [1, *self._info.resize.canvas, 3]})
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": recipe.threads,
            "PERF_COUNT": True,
        }
        self._requests = {}
        for name, tensors in (("heads", recipe.heads), ("candidates", CANDIDATES)):
            cut = openvino.Model(
                [find_tensor(whole, t) for t in tensors], whole.get_parameters(), name
            ).clone()
            self._requests[name] = core.compile_model(cut, "CPU", config).create_infer_request()
        self._turn = 0

    def size(self, image: Image) -> tuple[int, int]:
        assert self._info.resize.canvas is not None
        return self._info.resize.canvas

    def run(self, images: Sequence[Image]) -> Run:
        batch, _ = self._info.resize.apply(list(images))
        order = list(self._requests.items())
        self._turn += 1
        ms = {}
        for name, request in order[:: 1 if self._turn % 2 else -1]:
            start = time.perf_counter()
            request.infer({0: batch}, share_inputs=True)
            ms[name] = 1000 * (time.perf_counter() - start)
        nodes = self._requests["candidates"].profiling_info
        ms["selection"] = 1000 * sum(
            node.real_time.total_seconds() for node in nodes if "candidate" in node.node_name
        )
        return Run(ms=ms)
