"""`retinart demo`: export the small model, evaluate it, and run it over a video."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from retinart import train
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.evaluate import Evaluation, evaluate
from retinart.engine.job.draw import collage, draw, write_jpeg
from retinart.engine.job.job import run_job
from retinart.engine.job.summary import DetectSummary
from retinart.engine.media.images import list_images, read_image
from retinart.engine.settings import DetectJob
from retinart.export.export import ExportReport, export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.data.scenes import make_scenes, scene_video
from retinart.train.data.settings import SceneSettings

SIZE = (256, 320)
SCENES, SCENES_SEED = 100, 20261121  # the training set has another seed
FRAMES = 150


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo did; its files lie in the folder that it was given."""

    export: ExportReport
    evaluation: Evaluation
    video: DetectSummary
    picture: Path


def shipped_checkpoint() -> Path:
    """The checkpoint of `tiny` that comes with the package."""
    path = Path(train.__path__[0]) / "assets" / "tiny.pt"
    if not path.is_file():
        raise BadInput(f"the shipped checkpoint {path} is missing", fix="Install retinart again")
    return path


def run_demo(out: Path) -> DemoReport:
    """Run the whole way from a checkpoint to an annotated video.

    Args:
        out: folder for the model, the scenes, the video and the results.
    """
    settings = ExportSettings(height=SIZE[0], width=SIZE[1])
    exported = export_checkpoint(shipped_checkpoint(), out / "model.onnx", settings)
    make_scenes(out / "scenes", num=SCENES, seed=SCENES_SEED, settings=SceneSettings(size=SIZE))
    scene_video(out / "scenes.mp4", frames=FRAMES, seed=SCENES_SEED)
    with Detector(exported.path) as detector:
        found = evaluate(detector, out / "scenes" / "instances.json", out / "scenes" / "images")
        job = DetectJob(source=str(out / "scenes.mp4"), out=out / "detected")
        video = run_job(detector, job)
        picture = _picture(detector, out)
    return DemoReport(export=exported, evaluation=found, video=video, picture=picture)


def _picture(detector: Detector, out: Path) -> Path:
    """Six scenes with their detections, in a grid."""
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
