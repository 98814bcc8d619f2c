"""Our own network in PyTorch as a peer: the checkpoint as it is before the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from retinart.benchmarks.timing.contestants import Call
from retinart.engine.common.timing import StageClock
from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo
from retinart.export.checkpoint import load_any
from retinart.train.model.predict import normalize, postprocess
from retinart.train.model.retinanet import HeadOutputs, build_retinanet


class TorchModel:
    """A checkpoint in PyTorch, with the sizes, thresholds and NMS of the exported file.

    Args:
        checkpoint: that the file was exported from.
        info: the exported file's metadata.
        threads: of PyTorch.
        compiled: through torch.compile; else in eager mode.
        half_on_gpu: in FP16 on the first GPU; else in FP32 on the CPU.
    """

    def __init__(
        self,
        *,
        checkpoint: Path,
        info: ModelInfo,
        threads: int,
        compiled: bool = False,
        half_on_gpu: bool = False,
    ) -> None:
        torch.set_num_threads(threads)
        self._info, self._half = info, half_on_gpu
        self._device = torch.device("cuda" if half_on_gpu else "cpu")
        model: Any = build_retinanet(info.variant)
        model.load_state_dict(load_any(checkpoint).model.state_dict())
        model.eval().to(self._device)
        if self._half:  # as fast as PyTorch goes: tensor cores want channels last; CUDA graphs
            model.half().to(memory_format=torch.channels_last)
        mode = "reduce-overhead" if self._half else None
        self._network = torch.compile(model, mode=mode) if compiled else model

    def size(self, image: Image) -> tuple[int, int]:
        """See `Contestant`."""
        rule = self._info.resize
        return rule.canvas_for([rule.fit(*image.shape[:2])])

    @torch.inference_mode()
    def run(self, images: Sequence[Image]) -> Call:
        """See `Contestant`."""
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
                if self._half:
                    x = x.half().contiguous(memory_format=torch.channels_last)
                outputs = HeadOutputs(*self._network(x))
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
        return Call({stage: sum(ms) for stage, ms in clock.ms.items()}, detections)
