"""PyTorch in TensorRT's place, so that a GPU shows the whole runner where no TensorRT runs.

`TorchTensorRT` has the names of the module `tensorrt` that the runner uses. A plan is a checkpoint.
`execute_async_v3` launches the network on the stream and the addresses that the runner gives. With
`device="cpu"` it runs as a host function of the stream, for a driver whose memory is the host's.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinart.engine.cuda.devices import DRIVER
from retinart.engine.model.info import INPUT, ModelInfo
from retinart.engine.tensorrt.engine_file import FrameShape
from retinart.engine.tensorrt.plan import output_tensors
from retinart.train.model.boxes import decode
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.retinanet import RetinaNet, flatten_levels, variant_anchors

VERSION = "0.0 (PyTorch)"
PAIRS, TURNS = 1000, 40  # pairs that enter NMS, and steps until nothing may change any more
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class TorchTensorRT:
    """See the module.

    Args:
        info: of the model in the plan.
        largest: (N, H, W, 3) of the profile.
        device: "cuda" or "cpu".
    """

    __version__ = VERSION
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")

    class ILogger:
        """The base of loggers."""

        Severity = SimpleNamespace(ERROR=1)

    def __init__(self, info: ModelInfo, largest: FrameShape, device: str = "cuda") -> None:
        self.info, self.largest, self.device = info, largest, device
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        """There are none."""
        return True

    def nptype(self, kind: Any) -> Any:
        """The types of tensors are NumPy's already."""
        return kind

    def Runtime(self, logger: Any) -> Any:
        """Loads plans."""
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: _Engine(self, plan, logger))


class _Engine:
    def __init__(self, trt: TorchTensorRT, plan: bytes, logger: Any) -> None:
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            Path(file.name).write_bytes(plan)
            model, _, _ = load_checkpoint(Path(file.name))
        self.trt, self.logger, self.model = trt, logger, model.eval().to(trt.device)
        self._shapes: dict[str, tuple[Any, list[int]]] = {
            name: (kind, [-1, *shape[1:]])
            for name, kind, shape in output_tensors(1, trt.info.thresholds.detections_per_img)
        } | {INPUT: (np.uint8, [-1, -1, -1, 3])}
        self.num_io_tensors = len(self._shapes)
        self.device_memory_size_v2 = int(np.prod(trt.largest))

    def get_tensor_name(self, index: int) -> str:
        return list(self._shapes)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._shapes[name][0]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._shapes[name][1]

    def create_execution_context(self, strategy: Any) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self._set = engine, dict[str, Any]()
        self._made: tuple[dict[str, Any], Callable[[], None]] | None = None
        self._kept: list[Any] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        self._set["scratch"] = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._set["shape"] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._set[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """False after an error, which goes to the log, as in TensorRT."""
        try:
            if self._made is None or self._made[0] != self._set:
                self._made = (dict(self._set), self._work())
            self._launch(stream_handle, self._made[1])
        except RuntimeError as error:
            self._engine.logger.log(1, f"PyTorch: {error}")
            return False
        return True

    def _work(self) -> Callable[[], None]:
        """The work at the shape and the addresses of now."""
        shape, trt = self._set["shape"], self._engine.trt
        device = trt.device
        frames = _at(self._set[INPUT], np.uint8, shape, device)
        scratch = _at(self._set["scratch"], np.uint8, shape, device)
        limit = trt.info.thresholds.detections_per_img
        outputs = [
            _at(self._set[name], kind, size, device)
            for name, kind, size in output_tensors(shape[0], limit)
        ]
        detect = _Detect(self._engine.model, trt.info, shape, device)

        def work() -> None:
            with torch.inference_mode():
                scratch.copy_(frames)  # so two batches that share it at a time are noticed
                for target, value in zip(outputs, detect(scratch), strict=True):
                    target.copy_(value)

        return work

    def _launch(self, handle: int, work: Callable[[], None]) -> None:
        if self._engine.trt.device == "cuda":
            stream: Any = torch.cuda.ExternalStream
            with torch.cuda.stream(stream(handle)):
                work()
            return
        function = _HOST_FUNCTION(lambda _: work())
        self._kept.append(function)  # a graph may call it again
        driver = ctypes.CDLL(DRIVER)
        code = driver.cuLaunchHostFunc(ctypes.c_void_p(handle), function, None)
        if code:
            raise RuntimeError(f"cuLaunchHostFunc: {code}")


class _Detect:
    """Frames to the four outputs at one shape. Nothing in it waits for the GPU."""

    def __init__(
        self, model: RetinaNet, info: ModelInfo, shape: tuple[int, ...], device: str
    ) -> None:
        self._model, self._info, self._variant = model, info, info.variant
        size = (shape[1], shape[2])
        self._anchors = [
            torch.from_numpy(a).to(device) for a in variant_anchors(info.variant, size)
        ]
        edge = [size[1], size[0]] * 2
        self._edge = torch.tensor(edge, dtype=torch.float32, device=device)
        self._mean_std = [
            torch.tensor(v, device=device) for v in (info.variant.mean_bgr, info.variant.std_bgr)
        ]

    def __call__(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        variant, limits = self._variant, self._info.thresholds
        mean, std = self._mean_std
        x = (frames.float() - mean) / std
        if variant.channel_order == "rgb":
            x = x.flip(-1)
        heads = self._model(x.permute(0, 3, 1, 2))
        boxes, scores = [], []
        for logits, deltas, anchors in zip(heads.logits, heads.deltas, self._anchors, strict=True):
            flat, moves = flatten_levels([logits], variant.num_classes), flatten_levels([deltas], 4)
            k = min(limits.topk_candidates, len(anchors))
            best = flat.amax(dim=2).topk(k).indices
            boxes.append(decode(
                moves.gather(1, best[..., None].expand(-1, -1, 4)), anchors[best],
                clamp=variant.box_clamp, clamp_below=variant.box_clamp_below,
                plus_one=variant.box_plus_one,
            ))  # fmt: skip
            index = best[..., None].expand(-1, -1, variant.num_classes)
            scores.append(flat.gather(1, index).sigmoid())
        return self._suppress(torch.cat(boxes, 1), torch.cat(scores, 1))

    def _suppress(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Greedy NMS as steps towards the set that suppresses all others, and no member."""
        limits, one = self._info.thresholds, float(self._variant.box_plus_one)
        most, (n, _, classes) = limits.detections_per_img, scores.shape
        best = scores.flatten(1).topk(min(PAIRS, scores[0].numel()))
        row, label = best.indices // classes, best.indices % classes
        if self._variant.clip_before_nms:
            boxes = torch.minimum(boxes, self._edge - one).clamp(min=0)
        xyxy = boxes.gather(1, row[..., None].expand(-1, -1, 4))
        low = torch.maximum(xyxy[:, :, None, :2], xyxy[:, None, :, :2])
        high = torch.minimum(xyxy[:, :, None, 2:], xyxy[:, None, :, 2:])
        both = (high - low + one).clamp(min=0).prod(-1)
        area = (xyxy[..., 2:] - xyxy[..., :2] + one).prod(-1)
        either = area[:, :, None] + area[:, None] - both
        drops = (both > either * limits.nms_thresh) & (label[:, :, None] == label[:, None])
        drops, enters = drops.float().triu(1), (best.values > limits.score_thresh).float()
        keep = enters
        for _ in range(TURNS):
            keep = enters * (torch.bmm(keep[:, None], drops)[:, 0] == 0)
        place = keep.cumsum(1).long() - 1
        kept = (keep > 0) & (place < most)
        slot = torch.where(kept, place, most)  # what is left out goes to a row behind the last
        made = []
        for every in (xyxy, best.values, label.float()):
            value = every * (kept[..., None] if every.ndim == 3 else kept)
            target = value.new_zeros((n, most + 1, *value.shape[2:]))
            index = slot[..., None].expand_as(value) if value.ndim == 3 else slot
            made.append(target.scatter(1, index, value)[:, :most])
        limited = torch.minimum(made[0], self._edge).clamp(min=0)
        return kept.sum(1, keepdim=True).int(), limited, made[1], made[2].int()


def _at(address: int, kind: Any, shape: tuple[int, ...], device: str) -> Tensor:
    """A tensor of the memory at an address."""
    if device == "cuda":
        interface = {
            "shape": tuple(shape), "typestr": np.dtype(kind).str, "data": (address, False),
            "strides": None, "version": 3,
        }  # fmt: skip
        return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device="cuda")
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return torch.from_numpy(memory.view(kind).reshape(shape))
