"""`retinart demo`: export, evaluate and run the small model that is shipped."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retinart.cli.export import say_export
from retinart.cli.fields import add_out, describe_command
from retinart.engine.errors import BadInput

if TYPE_CHECKING:
    from retinart.engine.detector import Detector

_SIZE = (256, 320)  # height and width
_SCENES, _SCENES_SEED = 100, 20261121  # the training set has another seed
_FRAMES = 150


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart demo`."""
    describe_command(
        parser,
        "Export the small model that is shipped, measure its AP on generated pictures, and detect "
        "in a generated video.",
        "retinart demo --out runs/demo",
    )
    add_out(parser, Path("runs/demo"), "folder for the model, the pictures and the video")
    parser.set_defaults(extra="export,eval")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.detector import Detector
    from retinart.engine.evaluation.evaluate import evaluate, points
    from retinart.engine.job.job import run_job
    from retinart.engine.settings import DetectJob
    from retinart.export.export import export_checkpoint
    from retinart.export.settings import ExportSettings
    from retinart.train.data.scenes import make_scenes, scene_video
    from retinart.train.data.settings import SceneSettings

    scenes, film = args.out / "scenes", args.out / "scenes.mp4"
    settings = ExportSettings(height=_SIZE[0], width=_SIZE[1])
    exported = export_checkpoint(shipped_checkpoint(), args.out / "model.onnx", settings)
    make_scenes(scenes, num=_SCENES, seed=_SCENES_SEED, settings=SceneSettings(size=_SIZE))
    scene_video(film, frames=_FRAMES, seed=_SCENES_SEED)
    with Detector(exported.path) as detector:
        found = evaluate(detector, scenes / "instances.json", scenes / "images")
        video = run_job(detector, DetectJob(source=str(film), out=args.out / "detected"))
        picture = _picture(detector, args.out)
    say_export(exported)
    ap, ap50 = (points(found.figures[name]) for name in ("AP", "AP50"))
    print(f"\nAP {ap}, AP50 {ap50} on {found.images} fresh scenes")
    print(f"\nvideo: {video.outcome()}")
    print("\nfiles:")
    for path in [exported.path, *video.outputs, picture]:
        print(f"  {path}")
    return 0


def shipped_checkpoint() -> Path:
    """The checkpoint of `tiny` that comes with the package."""
    from retinart import train

    path = Path(train.__path__[0]) / "assets" / "tiny.pt"
    if not path.is_file():
        raise BadInput(f"the shipped checkpoint {path} is missing", fix="Install retinart again")
    return path


def _picture(detector: Detector, out: Path) -> Path:
    """Six scenes with their detections, in a grid."""
    import cv2
    import numpy as np

    from retinart.engine.job.draw import collage, draw, write_jpeg
    from retinart.engine.media.images import list_images, read_image

    images = map(read_image, list_images(str(out / "scenes" / "images"))[:24])
    found = sorted(((detector(image), image) for image in images), key=lambda pair: -len(pair[0]))
    drawn = []
    for detections, image in found[:6]:
        sure = detections[detections.confidence >= 0.4]
        large = np.asarray(cv2.resize(image, None, fx=2, fy=2), np.uint8)
        drawn.append(draw(large, replace(sure, xyxy=sure.xyxy * 2), detector.classes))
    path = out / "detections.jpg"
    write_jpeg(path, collage(drawn, columns=3))
    return path
