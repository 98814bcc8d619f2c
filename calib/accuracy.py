"""AP of a model file, as a record that a calibration keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retinart.engine.detector import Detector
from retinart.engine.evaluation.evaluate import evaluate, existing
from retinart.engine.evaluation.gate import Change
from retinart.engine.evaluation.paired import paired_changes
from retinart.engine.evaluation.resample import Matches
from retinart.engine.runtime.options import RuntimeChoice


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a file reaches on annotated images.

    Attributes:
        figures: pycocotools' twelve, 0 to 1; None for a size without annotated objects.
        per_class: AP of each annotated class, 0 to 1, or None for one without objects.
        images: how many were evaluated.
        runtime: the runtime that ran the file.
        change: of AP against the FP32 file, with its 95% interval; None for the FP32 file.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    images: int
    runtime: str
    change: Change | None = None

    @property
    def ap(self) -> float:
        """AP, 0 to 1.

        Raises:
            BadInput: the record holds none, as nothing was measured.
        """
        return existing(self.figures, "AP")


def measure(
    model: Path,
    annotations: Path,
    images: Path,
    runtime: RuntimeChoice = "auto",
    *,
    reference: Matches | None = None,
) -> tuple[Accuracy, Matches]:
    """Evaluate a file.

    Args:
        annotations, images: a COCO instances file and its image folder.
        reference: the matches of the FP32 file, to compare with; None for the FP32 file.

    Raises:
        BadInput: the images or annotations cannot be used.
    """
    with Detector(model, runtime=runtime, check=False, cache=False) as detector:
        found = evaluate(detector, annotations, images)
        change = None
        if reference is not None:
            change = paired_changes(reference, found.matches).figures["AP"]
        accuracy = Accuracy(
            figures=found.figures,
            per_class=found.per_class,
            images=found.images,
            runtime=detector.runtime,
            change=change,
        )
        return accuracy, found.matches
