"""How the loss spreads over anchors (figure 4 of Lin et al. 2017).

The losses of a trained model's positive anchors, and of its negative ones, each divided by their
sum and put in ascending order: the curve says what share of the loss the easiest share of the
anchors has. With a larger gamma the few hard negatives hold nearly all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retinart.engine.errors import CheckFailed
from retinart.engine.evaluation.coco import load_coco
from retinart.train.data.batches import Batches, training_rule
from retinart.train.data.settings import NO_AUGMENTATION
from retinart.train.loss.criterion import assign
from retinart.train.loss.losses import sigmoid_focal_loss
from retinart.train.loss.matcher import BACKGROUND
from retinart.train.loss.settings import LossSettings
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import flatten_levels, variant_anchors

GAMMAS = (0.0, 0.5, 1.0, 2.0)
_POINTS = 201  # of a curve
_HARDEST = (0.001, 0.01, 0.1)
Floats = npt.NDArray[np.float64]


@torch.inference_mode()
def loss_distribution(
    checkpoint: Path, annotations: Path, images: Path, *, size: tuple[int, int]
) -> dict[str, Any]:
    """The curves of all anchors of a dataset, without alpha, which cancels.

    An anchor's loss is the sum over its classes. Ignored anchors are left out.

    Args:
        checkpoint: a trained model.
        annotations, images: what to run it on.
        size: (height, width) of the network input.

    Returns:
        Plain JSON types: `x`, the share of the anchors, ascending, and by kind ("positive",
        "negative") their number and, by gamma, the `curve` at x and what the hardest have.

    Raises:
        CheckFailed: there is no positive anchor.
    """
    model, variant, _ = load_checkpoint(checkpoint)
    dataset = load_coco(annotations, images)
    batches = Batches(
        dataset,
        rule=training_rule(variant, size),
        batch_size=1,
        seed=0,
        augmentation=NO_AUGMENTATION,
    )
    anchors = torch.from_numpy(np.concatenate(variant_anchors(variant, size)))
    found: dict[tuple[str, float], list[Floats]] = {}
    for step in range(batches.steps_per_epoch):
        batch = batches[step]
        outputs = model(normalize(batch.frames, variant))
        logits = flatten_levels(outputs.logits, variant.num_classes)[0].double()  # (A, K)
        labels = assign(batch.objects, anchors, LossSettings()).labels[0]  # (A,)
        kinds = {"positive": labels >= 0, "negative": labels == BACKGROUND}
        targets = torch.zeros_like(logits)
        targets[kinds["positive"], labels[kinds["positive"]]] = 1
        for gamma in GAMMAS:
            loss = sigmoid_focal_loss(logits, targets, alpha=None, gamma=gamma).sum(dim=1)
            for kind, chosen in kinds.items():
                found.setdefault((kind, gamma), []).append(loss[chosen].numpy())
    result: dict[str, Any] = {"x": np.linspace(0, 1, _POINTS).round(4).tolist()}
    for kind in ("positive", "negative"):
        losses = {gamma: np.sort(np.concatenate(found[kind, gamma])) for gamma in GAMMAS}
        count = len(losses[0.0])
        if not count:
            raise CheckFailed(
                f"there is no {kind} anchor in {annotations}",
                fix="Give boxes that the anchors fit: `retinart data check` says how well",
            )
        result[kind] = {
            "anchors": count,
            "gammas": {f"{gamma:g}": describe(values) for gamma, values in losses.items()},
        }
    return result


def describe(losses: Floats) -> dict[str, Any]:
    """The curve of ascending losses, and the share that the hardest of them have."""
    total = np.concatenate([[0.0], np.cumsum(losses)])
    total /= total[-1]
    position = np.linspace(0, 1, len(total))
    x = np.linspace(0, 1, _POINTS)
    return {
        "curve": np.interp(x, position, total).round(6).tolist(),
        "hardest": {
            f"{share:g}": round(1 - float(np.interp(1 - share, position, total)), 4)
            for share in _HARDEST
        },
    }
