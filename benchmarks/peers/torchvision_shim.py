"""torchvision as a peer: imported from a folder of its own, with the one operator that it needs.

torchvision's wheel is built for one build of PyTorch. Beside another build its compiled operators
do not load, and the import fails. RetinaNet's inference needs one of these operators, `nms`, which
is registered here before the import. Everything else that runs is torchvision's own.

The stand-in is our own greedy NMS in NumPy. It gives what a plain greedy loop gives. Compared with
such a loop in C (-O3, one core), a call takes about 0.05 ms longer for 10 boxes, and 0.1 ms longer
for 100. With 91 classes that may cost the peer a few milliseconds an image, which stay in its time.
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

from retinart.engine.errors import MissingDependency
from retinart.engine.runtime.nms import greedy_nms

VERSION = "0.28.0"  # the one that belongs to the pinned PyTorch 2.13.0
_registered: list[Any] = []  # a library object withdraws its operators when it is freed
_library: Any = torch.library  # their functions have no types
_ops: Any = torch.ops


_USUAL = Path("build/peers")


def install_command(peers: Path = _USUAL) -> str:
    """What to type to have torchvision in a folder, without a change to the environment."""
    packages = f"torchvision=={VERSION} pillow"
    return f"{sys.executable} -m pip install --no-deps --target {peers} {packages}"


def check_installed(peers: Path | None) -> Path:
    """Check that a folder is named and holds torchvision and its imaging library; returns it.

    Raises:
        MissingDependency: one is missing; the message has the command that installs both.
    """
    if peers is None:
        raise MissingDependency(
            "the comparison needs torchvision, and no folder that holds it is named",
            fix=f"Name the folder with `torchvision`. To make one, run: {install_command()}",
        )
    for package in ("torchvision", "PIL"):
        if not (peers / package / "__init__.py").is_file():
            raise MissingDependency(
                f"the comparison needs {package}, which is missing in {peers}",
                why="torchvision is a peer to compare with, and not a dependency of retinart",
                fix=f"Run: {install_command(peers)}",
            )
    return peers


def load_torchvision(peers: Path) -> Any:
    """The module torchvision, from the folder that `install_command` filled.

    Its own compiled operators run where they load, and the stand-in where they do not.
    """
    check_installed(peers)
    sys.path.insert(0, str(peers))
    native = any(_loads(path) for path in (peers / "torchvision").glob("_C*.so"))
    if not native:
        library = _library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):  # the import asks for both schemas; qnms is never called
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

        def stand_in(dets: torch.Tensor, scores: torch.Tensor, iou: float) -> torch.Tensor:
            return torch.from_numpy(nms(dets.numpy(), scores.numpy(), iou))

        library.impl("nms", stand_in, "CPU")
        _registered.append(library)
    torchvision = importlib.import_module("torchvision")
    if not native:
        torchvision.extension._has_ops = lambda: True
    return torchvision


def nms(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], iou_threshold: float
) -> npt.NDArray[np.int64]:
    """Greedy NMS over boxes (P, 4) xyxy of one class; indices that stay, in descending score."""
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order
    one_class = np.zeros(len(order), np.intp)
    return order[greedy_nms(boxes[order], one_class, iou_threshold, len(order))]


def _loads(library: Path) -> bool:
    try:
        _ops.load_library(str(library))
    except OSError:
        return False
    return True
