"""How the loss spreads over anchors (figure 4 of Lin et al. 2017).

The losses of a trained model's positive anchors are sorted in ascending order and divided by their
sum. The same is done for its negative anchors. The curve shows the share of the loss that belongs
to the easiest anchors. With a larger gamma a few hard negatives hold nearly all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from retinart.engine.errors import CheckFailed
from retinart.engine.evaluation.coco import load_coco
from retinart.train.data.batches import Batches
from retinart.train.data.rule import training_rule
from retinart.train.data.settings import NO_AUGMENTATION
from retinart.train.loss.criterion import assign
from retinart.train.loss.losses import sigmoid_focal_loss
from retinart.train.loss.matcher import BACKGROUND
from retinart.train.loss.settings import LossSettings
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import flatten_levels, variant_anchors

AGAIN = "Delete done.json in the folder, and run the ablations again"
GAMMAS = (0.0, 0.5, 1.0, 2.0)
_POINTS = 201  # of a curve
_HARDEST = (0.001, 0.01, 0.1)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """How the losses of a kind of anchors spread.

    Attributes:
        curve: the cumulative share of the loss at `Figure4.x`.
        hardest: share of the loss that the hardest anchors hold, by their share.
    """

    curve: tuple[float, ...]
    hardest: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AnchorLosses:
    """The positive or the negative anchors of a dataset: how many, and a curve for each gamma."""

    anchors: int
    gammas: dict[str, LossCurve]


@dataclass(frozen=True, kw_only=True)
class Figure4:
    """The paper's figure 4; `x` is the share of the anchors, the easiest first."""

    SCHEMA: ClassVar[int] = 1
    AGAIN: ClassVar[str] = AGAIN

    x: tuple[float, ...]
    positive: AnchorLosses
    negative: AnchorLosses


@torch.inference_mode()
def loss_distribution(
    checkpoint: Path, annotations: Path, images: Path, *, size: tuple[int, int]
) -> Figure4:
    """The curves of all anchors of a dataset, without alpha, which cancels out.

    An anchor's loss is the sum over its classes. Ignored anchors are left out.

    Args:
        checkpoint: a trained model.
        annotations, images: what to run it on.
        size: (height, width) of the network input.

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
        chosen = {"positive": labels >= 0, "negative": labels == BACKGROUND}
        targets = torch.zeros_like(logits)
        targets[chosen["positive"], labels[chosen["positive"]]] = 1
        for gamma in GAMMAS:
            loss = sigmoid_focal_loss(logits, targets, alpha=None, gamma=gamma).sum(dim=1)
            for kind, those in chosen.items():
                found.setdefault((kind, gamma), []).append(loss[those].numpy())
    kinds = {}
    for kind in ("positive", "negative"):
        losses = {gamma: np.sort(np.concatenate(found[kind, gamma])) for gamma in GAMMAS}
        if not len(losses[0.0]):
            raise CheckFailed(
                f"{annotations} gives no {kind} anchor",
                fix="Give boxes that the anchors fit: `retinart data check` says how well",
            )
        gammas = {f"{gamma:g}": describe(values) for gamma, values in losses.items()}
        kinds[kind] = AnchorLosses(anchors=len(losses[0.0]), gammas=gammas)
    x = np.linspace(0, 1, _POINTS).round(4).tolist()
    return Figure4(x=tuple(x), positive=kinds["positive"], negative=kinds["negative"])


def describe(losses: Floats) -> LossCurve:
    """The curve of ascending losses, and the share that the hardest of them have."""
    total = np.concatenate([[0.0], np.cumsum(losses)])
    total /= total[-1]
    position = np.linspace(0, 1, len(total))
    x = np.linspace(0, 1, _POINTS)
    return LossCurve(
        curve=tuple(np.interp(x, position, total).round(6).tolist()),
        hardest={
            f"{share:g}": round(1 - float(np.interp(1 - share, position, total)), 4)
            for share in _HARDEST
        },
    )
