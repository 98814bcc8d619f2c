"""Detection in PyTorch: the reference that exported files are compared with.

N  images      A  anchors at a position      K  classes      T  anchors of all levels
"""

from __future__ import annotations

import torch
from torch import Tensor

from retinart.engine.detections import Detections
from retinart.engine.images import Image
from retinart.engine.info import Thresholds
from retinart.engine.nms import detect_from_candidates
from retinart.engine.variant import Variant
from retinart.train.boxes import clip, decode
from retinart.train.retinanet import HeadOutputs, RetinaNet, flatten_levels, variant_anchors


def normalize(frames: Tensor, variant: Variant) -> Tensor:
    """Frames as the first convolution sees them.

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
    model: RetinaNet, variant: Variant, frames: Image, thresholds: Thresholds
) -> list[Detections]:
    """Detections in pixels of the frames (N, H, W, 3) uint8 BGR, one object a frame."""
    size = (frames.shape[1], frames.shape[2])
    return postprocess(
        model(normalize(torch.from_numpy(frames), variant)), variant, size, thresholds
    )


def postprocess(
    outputs: HeadOutputs,
    variant: Variant,
    image_size: tuple[int, int],
    thresholds: Thresholds,
    *,
    clip_size: tuple[int, int] | None = None,
) -> list[Detections]:
    """Raw outputs to detections.

    Args:
        outputs: of the network for inputs of image_size.
        variant: anchors and box coding.
        image_size: (height, width) of the padded network input.
        thresholds: what counts as a detection.
        clip_size: (height, width) that boxes are clipped to; the whole input by default.

    Returns:
        Detections in pixels of the network input.
    """
    anchors = [torch.from_numpy(a) for a in variant_anchors(variant, image_size)]
    clip_size = clip_size or image_size
    found = []
    for i in range(len(outputs.logits[0])):
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
                plus_one=variant.box_plus_one,
            )
            boxes.append(level_boxes)
            scores.append(flat_logits[best].sigmoid())
        all_boxes = torch.cat(boxes)
        if variant.clip_before_nms:
            all_boxes = clip(all_boxes, clip_size, plus_one=variant.box_plus_one)
        result = detect_from_candidates(
            all_boxes.numpy(), torch.cat(scores).numpy(), thresholds, plus_one=variant.box_plus_one
        )
        if not variant.clip_before_nms:
            clipped = clip(torch.from_numpy(result.xyxy), clip_size, plus_one=variant.box_plus_one)
            result = Detections(
                xyxy=clipped.numpy(), confidence=result.confidence, class_id=result.class_id
            )
        found.append(result)
    return found
