"""torchvision's RetinaNet, in eager mode or compiled, from a BGR frame to its boxes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from retinart.benchmarks.peers.torchvision_shim import load_torchvision
from retinart.benchmarks.timing.contestants import Call
from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.resize_rule import PAPER_RATIO


class TorchvisionModel:
    """A state dict in torchvision's own model, loaded strictly.

    It runs as a careful user of torchvision runs it: one conversion of the frame, torchvision's
    transform, network, selection and NMS, under inference_mode.

    Args:
        checkpoint: a state dict of torchvision's RetinaNet, v1 or v2.
        folder: that torchvision is imported from.
        info: metadata of the file that was exported from the checkpoint.
        compiled: backbone and heads go through torch.compile; else all is in eager mode.
        threads: of PyTorch.
    """

    def __init__(
        self, *, checkpoint: Path, folder: Path, info: ModelInfo, compiled: bool, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        torchvision = load_torchvision(folder)
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        frozen = "backbone.body.bn1.num_batches_tracked" not in state  # frozen norms count none
        self._model = _build(torchvision, info, frozen=frozen)
        self._model.load_state_dict(state, strict=True)
        self._model.eval()
        if compiled:  # the rest is Python that follows each image's size
            self._model.backbone = torch.compile(self._model.backbone, dynamic=False)
            self._model.head = torch.compile(self._model.head, dynamic=False)
        self._marks: dict[str, float] = {}
        for name in ("transform", "backbone", "head"):
            module = getattr(self._model, name)
            module.register_forward_pre_hook(partial(self._mark, f"{name} starts"))
            module.register_forward_hook(partial(self._mark, f"{name} ends"))

    def size(self, image: Image) -> tuple[int, int]:
        """See `Contestant`."""
        images, _ = self._model.transform([_tensor(image)])
        height, width = images.tensors.shape[-2:]
        return int(height), int(width)

    def run(self, images: Sequence[Image]) -> Call:
        """See `Contestant`. The stage `nms` is all that comes after the heads."""
        (image,) = images
        start = time.perf_counter()
        with torch.inference_mode():
            result = self._model([_tensor(image)])[0]
            found = Detections(
                xyxy=result["boxes"].numpy(),
                confidence=result["scores"].numpy(),
                class_id=result["labels"].numpy().astype(np.int32),
            )
        total, marks = time.perf_counter() - start, self._marks
        resize = marks["transform ends"] - start  # with the conversion of the frame
        infer = sum(
            marks[f"{name} ends"] - marks[f"{name} starts"] for name in ("backbone", "head")
        )
        seconds = {"total": total, "resize": resize, "infer": infer, "nms": total - resize - infer}
        return Call({stage: 1000 * s for stage, s in seconds.items()}, (found,))

    def _mark(self, name: str, *_: Any) -> None:
        self._marks[name] = time.perf_counter()


def _tensor(image: Image) -> torch.Tensor:
    """(3, H, W) float32 RGB in 0 to 1."""
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous().float().div_(255)


def _build(torchvision: Any, info: ModelInfo, *, frozen: bool) -> Any:
    """torchvision's RetinaNet for an exported file's network, sizes and thresholds.

    It is put together from its parts, as `retinanet_resnet50_fpn` and its v2 do it, for two
    reasons. Those functions take frozen norms only when they download weights, although the
    published v1 runs with frozen norms. And they have no other backbone.
    """
    detection, ops = torchvision.models.detection, torchvision.ops
    variant, rule, limits = info.variant, info.resize, info.thresholds
    v2 = variant.head_norm_groups > 0
    norm = ops.FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d
    body = getattr(torchvision.models, variant.backbone)(weights=None, norm_layer=norm)
    p6_from = body.inplanes if v2 else 256  # v2 takes P6 from C5, which has these channels
    backbone = detection.backbone_utils._resnet_fpn_extractor(
        body,
        3,
        returned_layers=[2, 3, 4],
        extra_blocks=ops.feature_pyramid_network.LastLevelP6P7(p6_from, 256),
    )
    for module in backbone.modules():
        if hasattr(module, "running_var"):
            module.eps = variant.bn_eps
    more = {}
    if v2:
        anchors = detection.retinanet._default_anchorgen()
        more["anchor_generator"] = anchors
        more["head"] = detection.retinanet.RetinaNetHead(
            backbone.out_channels,
            anchors.num_anchors_per_location()[0],
            variant.num_classes,
            norm_layer=partial(torch.nn.GroupNorm, 32),
        )
    assert rule.short_side is not None
    return detection.RetinaNet(
        backbone,
        variant.num_classes,
        min_size=rule.short_side,
        max_size=rule.max_size or int(rule.short_side * PAPER_RATIO),
        score_thresh=limits.score_thresh,
        nms_thresh=limits.nms_thresh,
        detections_per_img=limits.detections_per_img,
        topk_candidates=limits.topk_candidates,
        **more,
    )
