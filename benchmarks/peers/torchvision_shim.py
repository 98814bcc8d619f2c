"""torchvision as a peer: imported from a folder of its own, with the one operator that it needs.

torchvision's wheel is built for one build of PyTorch. Beside another one its compiled operators do
not load and the import fails. RetinaNet's inference needs a single one of them, `nms`, which is
registered here before the import. Everything else that runs is torchvision's own.

The stand-in takes boxes in descending score in blocks of 128, computes the IoU of a block's boxes
that are still alive with all later ones that are still alive in whole-array NumPy, and then walks
the block's rows. It gives what a plain greedy loop gives. Beside that loop in C (-O3, one core) a
call took 0.03 ms more for 10 boxes, 0.07 ms more for 100, and less from 1000 on: with 91 classes it
may cost the peer a few milliseconds an image. So every call is timed, the sum is printed, and
nothing is subtracted.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retinart.engine.common.timing import StageClock
from retinart.engine.errors import MissingDependency

VERSION = "0.28.0"  # the one that belongs to the pinned PyTorch 2.13.0
BLOCK = 128
_registered: list[Any] = []  # a library object withdraws its operators when it is freed
_library: Any = torch.library  # their functions have no types
_ops: Any = torch.ops


def install_command(peers: Path) -> str:
    """What to type to have torchvision in a folder, without a change to the environment."""
    packages = f"torchvision=={VERSION} pillow"
    return f"{sys.executable} -m pip install --no-deps --target {peers} {packages}"


def check_installed(peers: Path) -> None:
    """See that the folder holds torchvision and its imaging library.

    Raises:
        MissingDependency: it does not, with the command that puts them there.
    """
    for package in ("torchvision", "PIL"):
        if not (peers / package / "__init__.py").is_file():
            raise MissingDependency(
                f"the comparison needs {package} in {peers}, where it is not",
                why="torchvision is a peer to compare with and no dependency of retinart",
                fix=f"Run: {install_command(peers)}",
            )


def load_torchvision(peers: Path, clock: StageClock) -> tuple[Any, bool]:
    """Import torchvision from a folder.

    Args:
        peers: the folder that `install_command` filled.
        clock: gets the time of every call of the stand-in, under `nms`.

    Returns:
        The module, and whether its own compiled operators run rather than the stand-in.
    """
    check_installed(peers)
    sys.path.insert(0, str(peers))
    native = any(_loads(path) for path in (peers / "torchvision").glob("_C*.so"))
    if not native:
        library = _library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):  # the import asks for both schemas; qnms is never called
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

        def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
            with clock("nms"):
                keep = block_nms(dets.numpy(), scores.numpy(), iou_threshold)
                return torch.from_numpy(keep)

        library.impl("nms", nms, "CPU")
        _registered.append(library)
    torchvision = importlib.import_module("torchvision")
    if not native:
        torchvision.extension._has_ops = lambda: True
    return torchvision, native


def block_nms(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], iou_threshold: float
) -> npt.NDArray[np.int64]:
    """Greedy NMS over boxes of one class.

    Args:
        boxes: (P, 4) xyxy.
        scores: (P,).
        iou_threshold: a box goes when its IoU with a kept one is above this.

    Returns:
        Indices of the boxes that stay, in descending score.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order
    x1, y1, x2, y2 = (np.ascontiguousarray(column) for column in boxes[order].T)
    areas = (x2 - x1) * (y2 - y1)
    rest = np.arange(len(order))  # alive and not yet kept, best first
    keep = []
    while rest.size:
        rows = rest[:BLOCK, None]
        w = np.minimum(x2[rows], x2[rest]) - np.maximum(x1[rows], x1[rest])
        h = np.minimum(y2[rows], y2[rest]) - np.maximum(y1[rows], y1[rest])
        inter = np.maximum(w, 0) * np.maximum(h, 0)
        with np.errstate(invalid="ignore"):  # two boxes without an area
            above = inter / (areas[rows] + areas[rest] - inter) > iou_threshold
        block, later = above[:, : len(rows)], above[:, len(rows) :]
        alive = np.ones(len(rows), bool)
        for i in np.flatnonzero(np.triu(block, 1).any(axis=1)):
            if alive[i]:
                alive[i + 1 :] &= ~block[i, i + 1 :]
        keep.append(rest[: len(rows)][alive])
        rest = rest[len(rows) :][~later[alive].any(axis=0)]
    return np.asarray(order[np.concatenate(keep)], np.int64)


def _loads(library: Path) -> bool:
    try:
        _ops.load_library(str(library))
    except OSError:
        return False
    return True
