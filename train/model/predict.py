"""Detection in PyTorch: the reference that exported files are compared with.

N  images      A  anchors at a position      K  classes      T  anchors of all levels
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.model.variant import Variant
from retinart.engine.runtime.nms import clip_boxes, detect_from_candidates
from retinart.train.model.boxes import decode
from retinart.train.model.retinanet import HeadOutputs, flatten_levels, variant_anchors


def normalize(frames: Tensor, variant: Variant) -> Tensor:
    """Frames as the input of the first convolution.

    Args:
        frames: (N, H, W, 3) uint8 BGR.

    Returns:
        (N, 3, H, W) float32, channels in the variant's order, in channels-last memory.
    """
    mean = torch.tensor(variant.mean_bgr, device=frames.device)
    std = torch.tensor(variant.std_bgr, device=frames.device)
    x = (frames.float() - mean) / std
    if variant.channel_order == "rgb":
        x = x.flip(-1)
    return x.permute(0, 3, 1, 2)


@torch.inference_mode()
def predict(
    model: nn.Module,
    variant: Variant,
    frames: Image,
    thresholds: Thresholds,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Detections]:
    """Detections in pixels of the frames (N, H, W, 3) uint8 BGR, one object a frame.

    Args:
        sizes: see `postprocess`.
    """
    frame_size = (frames.shape[1], frames.shape[2])
    device = next(model.parameters()).device
    outputs = model(normalize(torch.from_numpy(frames).to(device), variant))
    outputs = HeadOutputs(*([m.cpu() for m in maps] for maps in outputs))
    return postprocess(outputs, variant, frame_size, thresholds, sizes=sizes)


def postprocess(
    outputs: HeadOutputs,
    variant: Variant,
    frame_size: tuple[int, int],
    thresholds: Thresholds,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> list[Detections]:
    """Raw outputs to detections.

    Args:
        outputs: of the network for frames of frame_size.
        variant: anchors and box coding.
        frame_size: (height, width) of the padded network input.
        thresholds: for scores, NMS and the number of detections.
        sizes: (height, width) of the part of each frame that its image covers; None for all of it.

    Returns:
        Detections in pixels of the network input.
    """
    device = outputs.logits[0].device
    anchors = [torch.from_numpy(a).to(device) for a in variant_anchors(variant, frame_size)]
    plus_one = variant.box_plus_one
    found = []
    for i, size in enumerate(sizes or [frame_size] * len(outputs.logits[0])):
        boxes, scores = [], []
        for logits, deltas, level_anchors in zip(
            outputs.logits, outputs.deltas, anchors, strict=True
        ):
            flat_logits = flatten_levels([logits[i : i + 1]], variant.num_classes)[0]  # (T_l, K)
            flat_deltas = flatten_levels([deltas[i : i + 1]], 4)[0]
            k = min(thresholds.topk_candidates, len(level_anchors))
            best = flat_logits.amax(dim=1).topk(k).indices
            level_boxes = decode(
                flat_deltas[best],
                level_anchors[best],
                clamp=variant.box_clamp,
                clamp_below=variant.box_clamp_below,
                plus_one=plus_one,
            )
            boxes.append(level_boxes)
            scores.append(flat_logits[best].sigmoid())
        edge = variant.clip_size(frame_size, size)
        result = detect_from_candidates(
            torch.cat(boxes).float().cpu().numpy(),
            torch.cat(scores).float().cpu().numpy(),
            thresholds,
            plus_one=plus_one,
            clip_to=edge if variant.clip_before_nms else None,
        )
        clipped = clip_boxes(result.xyxy, edge, plus_one=plus_one)
        found.append(dataclasses.replace(result, xyxy=clipped))
    return found
