"""The pictures and models that come with the package, and what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from retinart import benchmarks
from retinart.engine.errors import BadInput
from retinart.engine.job.draw import collage, write_jpeg
from retinart.engine.media.images import list_images, read_image
from retinart.engine.media.video_writer import VideoWriter

ASSETS = Path(__file__).parent / "assets"
MODEL = ASSETS / "bccd.onnx"
CHECKPOINT = Path(benchmarks.__path__[0]) / "results" / "bccd" / "tiny.pt"
SIZE = (256, 320)  # height and width of the model's input
_HEIGHT, _WIDTH = 480, 640  # of the pictures
_SLIDE, _STEP, _FPS = 6, 20, 20.0  # pictures side by side, pixels a frame, frames a second


def copy_assets(out: Path, names: Sequence[str]) -> None:
    """Copy files and folders of the package to where the demo's commands use them.

    Raises:
        BadInput: one is missing.
    """
    for name in names:
        source = CHECKPOINT if name == "bccd.pt" else ASSETS / name
        if source.is_dir():
            (out / name).mkdir(exist_ok=True)
            pairs = [(path, out / name / path.name) for path in sorted(source.iterdir())]
        else:
            pairs = [(source, out / name)]
        for path, target in pairs:
            if not path.is_file():
                raise BadInput(f"the shipped file {path} is missing", fix="Install retinart again")
            shutil.copyfile(path, target)  # without the permissions: a package may be read-only


def slide_video(path: Path, pictures: Path) -> None:
    """A view that moves over pictures side by side, as over a slide under a microscope."""
    images = [read_image(image) for image in list_images(str(pictures))[:_SLIDE]]
    slide = np.hstack([cv2.resize(image, (_WIDTH, _HEIGHT)) for image in images])
    with VideoWriter(path, fps=_FPS, size=(_HEIGHT, _WIDTH)) as video:
        for left in range(0, slide.shape[1] - _WIDTH + 1, _STEP):
            video.write(np.asarray(slide[:, left : left + _WIDTH], np.uint8))


def side_by_side(path: Path, pictures: Sequence[Path], columns: int = 3) -> None:
    """Write pictures in rows, as one JPEG."""
    write_jpeg(path, collage([read_image(picture) for picture in pictures], columns, height=360))
