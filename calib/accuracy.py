"""AP of model files while they are being made, each measured once."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from retinart.calib.resume import Saved
from retinart.engine.common.progress import Progress
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.evaluate import evaluate
from retinart.engine.runtime.options import RuntimeChoice


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a file reaches on annotated images.

    Attributes:
        figures: pycocotools' twelve, 0 to 1; None where nothing of a size is annotated.
        per_class: AP of each annotated class, 0 to 1, or None for one without objects.
        images: how many were evaluated.
        runtime: that ran it.
    """

    figures: dict[str, float | None]
    per_class: dict[str, float | None]
    images: int
    runtime: str

    @property
    def ap(self) -> float:
        """AP in points, 0 to 100."""
        return 100 * (self.figures["AP"] or 0.0)


class Judge:
    """Measures AP of files and graphs on one set of annotated images.

    Args:
        annotated: a COCO instances file and its image folder, or None when there are none.
        saved: where results are kept, by name.
    """

    def __init__(self, annotated: tuple[Path, Path] | None, saved: Saved) -> None:
        self._annotated, self._saved = annotated, saved
        self._results: dict[str, Any] = saved.get("accuracy") or {}

    @property
    def able(self) -> bool:
        """Whether there are annotated images."""
        return self._annotated is not None

    def file(self, name: str, model: Path, runtime: RuntimeChoice = "auto") -> Accuracy:
        """Of a file.

        Args:
            name: under which the result is kept; the same name gives the same result.

        Raises:
            BadInput: the images or annotations cannot be used.
        """
        if self._annotated is None:
            raise BadInput("there are no annotated images", fix="Give `annotations`")
        if name not in self._results:
            annotations, images = self._annotated
            with Detector(model, runtime=runtime, check=False) as detector:
                found = evaluate(detector, annotations, images)
                result = Accuracy(
                    figures=found.figures,
                    per_class=found.per_class,
                    images=found.images,
                    runtime=detector.runtime,
                )
            self._results[name] = asdict(result)
            self._saved.set("accuracy", self._results)
            Progress().line(f"AP {result.ap:.2f}: {name}")
        return Accuracy(**self._results[name])

    def graph(self, name: str, graph: onnx.ModelProto, runtime: RuntimeChoice = "auto") -> Accuracy:
        """Of a graph with the metadata of a file; see `file`."""
        if name in self._results:
            return Accuracy(**self._results[name])
        with tempfile.TemporaryDirectory(prefix="retinart-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(graph, path)
            return self.file(name, path, runtime)
