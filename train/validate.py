"""AP of a model in training: the same evaluation as `retinart eval`, in PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.evaluation.evaluate import Evaluation, evaluate
from retinart.engine.media.images import Image
from retinart.engine.model.info import Thresholds
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Variant
from retinart.train.model.predict import predict


class TorchDetector:
    """A PyTorch model that detects as a `Detector` does.

    Args:
        model: in evaluation mode.
        variant: its record.
        classes: a name for each class.
        rule: how images become frames.
    """

    def __init__(
        self, model: nn.Module, variant: Variant, classes: Sequence[str], rule: ResizeRule
    ) -> None:
        self.classes = tuple(classes)
        self._model, self._variant, self._rule = model, variant, rule

    def __call__(self, image: Image, *, clock: StageClock) -> Detections:
        """Detections in pixels of an image (H, W, 3) uint8 BGR."""
        with clock("resize"):
            batch, (resized,) = self._rule.apply([image])
        with clock("infer"):
            (found,) = predict(
                self._model, self._variant, batch, Thresholds(), sizes=[resized.size]
            )
        return resized.detections_to_source(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """The images that AP is measured on.

    Attributes:
        annotations, images: a COCO instances file and its image folder.
        rule: how images become frames.
        classes: of the model.
    """

    annotations: Path
    images: Path
    rule: ResizeRule
    classes: tuple[str, ...]

    def run(self, model: nn.Module, variant: Variant) -> Evaluation:
        """Evaluate a model in evaluation mode."""
        detector = TorchDetector(model, variant, self.classes, self.rule)
        with torch.inference_mode():
            return evaluate(detector, self.annotations, self.images, quiet=True)
