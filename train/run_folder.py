"""The folder of a run: settings, results, curves and pictures. Each file is written whole."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from retinart.engine.common.files import atomic_path, write_json
from retinart.engine.common.folders import make_folder
from retinart.engine.common.html_page import COLORS, load_matplotlib
from retinart.engine.common.timing import StageClock
from retinart.engine.errors import BadInput, MissingDependency, pip_command
from retinart.engine.evaluation.coco import CocoDataset
from retinart.engine.job.draw import collage, draw, write_jpeg
from retinart.engine.media.images import read_image
from retinart.train.settings import TrainSettings
from retinart.train.validate import TorchDetector

COLUMNS = (
    "epoch", "step", "loss", "cls_loss", "box_loss", "lr", "images_per_s", "data_share",
    "seconds", "AP", "AP50",
)  # fmt: skip
Row = dict[str, float | None]  # AP and AP50 are 0 to 1
_PICTURES = 6
_CONFIDENCE = 0.3  # of the weakest prediction that is drawn


class RunFolder:
    """The files of a run besides its checkpoints.

    Args:
        path: the folder; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        self._board: Any = None

    def describe(self, settings: TrainSettings, device: torch.device) -> None:
        """Write `config.json`, which a resumed run reads, and `environment.json`."""
        write_json(self.path / "config.json", settings.absolute().to_json(), indent=2)
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        environment = {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        }
        write_json(self.path / "environment.json", environment, indent=2)

    def open_board(self, step: int) -> str | None:
        """Start TensorBoard's file at a step. Returns why that cannot be done, or None."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return "TensorBoard is not installed: no event file (pip install tensorboard)"
        # TensorBoard reads the files in the order of their names. A name begins with the second
        # in which it was made; in the same second the number of the process decides.
        while list(self.path.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(1 - time.time() % 1)
        self._board = SummaryWriter(str(self.path), purge_step=step)
        return None

    def record(self, rows: Sequence[Row]) -> None:
        """Write `results.csv`, and the last row to TensorBoard. AP is in points there."""
        rows = [_in_points(row) for row in rows]
        lines = [",".join(COLUMNS)]
        lines += [",".join(_cell(row[name]) for name in COLUMNS) for row in rows]
        with atomic_path(self.path / "results.csv") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self._board is not None:
            for name, value in rows[-1].items():
                if name not in ("epoch", "step") and value is not None:
                    self._board.add_scalar(f"train/{name}", value, int(rows[-1]["step"] or 0))
            self._board.flush()

    def draw_curves(self, rows: Sequence[Row]) -> str | None:
        """Write `curves.png`: loss, AP in points, learning rate. Returns why it cannot, or None."""
        rows = [_in_points(row) for row in rows]
        try:
            module = load_matplotlib()
        except MissingDependency:
            return f"matplotlib is not installed: no curves.png ({pip_command('report')})"
        figure = module.Figure(figsize=(10, 3.2), layout="constrained")
        panels = (("loss", "cls_loss", "box_loss"), ("AP", "AP50"), ("lr",))
        for axes, names in zip(figure.subplots(1, 3), panels, strict=True):
            for name, color in zip(names, COLORS, strict=False):
                points = [(r["epoch"], r[name]) for r in rows if r[name] is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, color=color, marker=".")
            axes.set_xlabel("epoch")
            if axes.lines:
                axes.legend(frameon=False)
        with atomic_path(self.path / "curves.png") as temporary:
            figure.savefig(temporary, dpi=120)
        return None

    def draw_samples(self, detector: TorchDetector, dataset: CocoDataset) -> None:
        """Write `predictions.jpg`: images of a dataset with the model's detections."""
        clock, tiles = StageClock(), []
        for item in dataset.images[:_PICTURES]:
            try:
                image = read_image(item.path)
            except BadInput:
                continue
            found = detector(image, clock=clock)
            tiles.append(draw(image, found[found.confidence >= _CONFIDENCE], detector.classes))
        if tiles:
            write_jpeg(self.path / "predictions.jpg", collage(tiles, columns=3, height=360))

    def close(self) -> None:
        """End TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _in_points(row: Row) -> Row:
    """A row whose AP is 0 to 100."""
    ap = {name: 100 * row[name] for name in ("AP", "AP50") if row[name] is not None}  # type: ignore[operator]
    return {**row, **ap}


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
