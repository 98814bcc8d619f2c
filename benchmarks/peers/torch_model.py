"""Our own network in PyTorch, as a peer: what a checkpoint does before it is exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retinart.benchmarks.timing.workers import Run
from retinart.engine.common.timing import StageClock
from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo
from retinart.export.checkpoint import load_any
from retinart.train.model.predict import normalize, postprocess
from retinart.train.model.retinanet import HeadOutputs, build_retinanet


class TorchEngine:
    """A checkpoint in PyTorch, with the sizes, thresholds and NMS of the exported file."""

    def __init__(self, recipe: TorchModel) -> None:
        torch.set_num_threads(recipe.threads)
        self._info, self._half = recipe.info, recipe.half_on_gpu
        self._device = torch.device("cuda" if recipe.half_on_gpu else "cpu")
        model = build_retinanet(recipe.info.variant)
        model.load_state_dict(load_any(recipe.checkpoint).model.state_dict())
        model.eval().to(self._device)
        if self._half:
            model.half()
        self._network = torch.compile(model) if recipe.compiled else model

    def size(self, image: Image) -> tuple[int, int]:
        """See `retinart.benchmarks.timing.workers.Engine`."""
        rule = self._info.resize
        return rule.canvas_for([rule.fit(*image.shape[:2])])

    @torch.inference_mode()
    def run(self, images: Sequence[Image]) -> Run:
        """See `retinart.benchmarks.timing.workers.Engine`."""
        clock, info = StageClock(), self._info
        with clock("total"):
            with clock("resize"):
                batch, resized = info.resize.apply(list(images))
            frames = torch.from_numpy(batch)
            if self._device.type != "cpu":
                with clock("copy"):
                    frames = frames.pin_memory()
            with clock("infer"):
                frames = frames.to(self._device)
                x = normalize(frames, info.variant)
                outputs = HeadOutputs(*self._network(x.half() if self._half else x))
                if self._half:
                    torch.cuda.synchronize()
            with clock("nms"):
                found = postprocess(
                    outputs,
                    info.variant,
                    (batch.shape[1], batch.shape[2]),
                    info.thresholds,
                    sizes=[r.size for r in resized],
                )
            with clock("results"):
                detections = tuple(
                    r.detections_to_source(d) for d, r in zip(found, resized, strict=True)
                )
        return Run(ms={stage: sum(ms) for stage, ms in clock.ms.items()}, found=detections)


@dataclass(frozen=True, kw_only=True)
class TorchModel:
    """How to open it.

    Attributes:
        checkpoint: what the file was exported from.
        info: the exported file's metadata.
        compiled: through torch.compile; else in eager mode.
        half_on_gpu: in FP16 on the first GPU; else in FP32 on the CPU.
    """

    checkpoint: Path
    info: ModelInfo
    threads: int
    compiled: bool = False
    half_on_gpu: bool = False

    def open(self) -> TorchEngine:
        return TorchEngine(self)
