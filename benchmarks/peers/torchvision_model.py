"""torchvision's RetinaNet, in eager mode or compiled, from a BGR frame to its boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from retinart.benchmarks.peers.torchvision_shim import load_torchvision
from retinart.benchmarks.timing.workers import Engine, Run
from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds

STAGES = ("transform", "backbone", "head")  # of its modules; what comes after them is `rest`


@dataclass(frozen=True, kw_only=True)
class Torchvision:
    """torchvision's own model.

    Attributes:
        checkpoint: a state dict of its RetinaNet, v1 or v2.
        peers: folder that torchvision is imported from.
        backbone: as torchvision calls it, such as "resnet101".
        group_norm: it is a v2, with GroupNorm in the heads.
        bn_eps: epsilon of the backbone's norms.
        min_size, max_size: of its transform.
        channels_last: weights are laid out channels last, which is faster on CPUs.
        compiled: its backbone and its heads go through torch.compile; else it runs in eager mode.
    """

    checkpoint: Path
    peers: Path
    num_classes: int
    group_norm: bool
    bn_eps: float
    min_size: int
    max_size: int
    backbone: str = "resnet50"
    thresholds: Thresholds = field(default_factory=Thresholds)
    channels_last: bool = False
    compiled: bool = False
    threads: int

    def open(self) -> Engine:
        return TorchvisionEngine(self)


class TorchvisionEngine:
    """A state dict in torchvision's own model, loaded strictly.

    Everything from the frame to the boxes is what a careful user of torchvision has: one conversion
    of the frame, its transform, its network, its selection and NMS, under inference_mode.
    """

    def __init__(self, recipe: Torchvision) -> None:
        torch.set_num_threads(recipe.threads)
        self._clock = StageClock()
        torchvision, self.native = load_torchvision(recipe.peers, self._clock)
        state = torch.load(recipe.checkpoint, map_location="cpu", weights_only=True)
        self._model = _build(torchvision, recipe, frozen=_is_frozen(state))
        self._model.load_state_dict(state, strict=True)
        self._model.eval()
        if recipe.channels_last:
            self._model.to(memory_format=torch.channels_last)
        if recipe.compiled:  # the rest is Python that follows each image's size
            self._model.backbone = torch.compile(self._model.backbone, dynamic=False)
            self._model.head = torch.compile(self._model.head, dynamic=False)
        self._marks: dict[str, float] = {}
        for name in STAGES:
            module = getattr(self._model, name)
            module.register_forward_pre_hook(partial(self._mark, f"{name} starts"))
            module.register_forward_hook(partial(self._mark, f"{name} ends"))

    def size(self, image: Image) -> tuple[int, int]:
        """See `retinart.benchmarks.timing.workers.Engine`."""
        images, _ = self._model.transform([_tensor(image)])
        height, width = images.tensors.shape[-2:]
        return int(height), int(width)

    def run(self, images: Sequence[Image]) -> Run:
        """See `benchmarks.timing.workers.Engine`. The stand-in's time is `nms`, within `rest`."""
        (image,) = images
        self._clock.ms.clear()
        start = time.perf_counter()
        with torch.inference_mode():
            tensor = _tensor(image)
            converted = time.perf_counter()
            result = self._model([tensor])[0]
            found = Detections(
                xyxy=result["boxes"].numpy(),
                confidence=result["scores"].numpy(),
                class_id=result["labels"].numpy().astype(np.int32),
            )
        end = time.perf_counter()
        ms = {name: self._marks[f"{name} ends"] - self._marks[f"{name} starts"] for name in STAGES}
        ms = {
            "convert": converted - start,
            **ms,
            "rest": end - converted - sum(ms.values()),
            "total": end - start,
        }
        ms = {stage: 1000 * seconds for stage, seconds in ms.items()}
        ms["nms"] = sum(self._clock.ms.get("nms", [0.0]))
        return Run(ms=ms, found=(found,))

    def _mark(self, name: str, *_: Any) -> None:
        self._marks[name] = time.perf_counter()


def _tensor(image: Image) -> torch.Tensor:
    """(3, H, W) float32 RGB in 0 to 1."""
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float().div_(255)


def _is_frozen(state: dict[str, Any]) -> bool:
    """Whether the weights come from frozen norms, which count no batches."""
    return "backbone.body.bn1.num_batches_tracked" not in state


def _build(torchvision: Any, recipe: Torchvision, *, frozen: bool) -> Any:
    """torchvision's RetinaNet for such weights.

    It is put together from its parts, as `retinanet_resnet50_fpn` and its v2 do it, for two
    reasons: those take frozen norms only when they download weights, although the published v1 runs
    with them, and they have no other backbone.
    """
    detection, ops = torchvision.models.detection, torchvision.ops
    norm = ops.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    body = getattr(torchvision.models, recipe.backbone)(weights=None, norm_layer=norm)
    p6_from = body.inplanes if recipe.group_norm else 256  # v2: of C5, whose channels these are
    backbone = detection.backbone_utils._resnet_fpn_extractor(
        body,
        3,
        returned_layers=[2, 3, 4],
        extra_blocks=ops.feature_pyramid_network.LastLevelP6P7(p6_from, 256),
    )
    settings: dict[str, Any] = {
        "min_size": recipe.min_size,
        "max_size": recipe.max_size,
        "score_thresh": recipe.thresholds.score_thresh,
        "nms_thresh": recipe.thresholds.nms_thresh,
        "detections_per_img": recipe.thresholds.detections_per_img,
        "topk_candidates": recipe.thresholds.topk_candidates,
    }
    if recipe.group_norm:
        anchors = detection.retinanet._default_anchorgen()
        settings["anchor_generator"] = anchors
        settings["head"] = detection.retinanet.RetinaNetHead(
            backbone.out_channels,
            anchors.num_anchors_per_location()[0],
            recipe.num_classes,
            norm_layer=partial(torch.nn.GroupNorm, 32),
        )
    model = detection.RetinaNet(backbone, recipe.num_classes, **settings)
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d | ops.FrozenBatchNorm2d):
            module.eps = recipe.bn_eps
    return model
