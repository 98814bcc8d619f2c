"""Good files of each format, and how a command reads a file of it."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from made_up import made_benchmark, model_times, times
from retinart.benchmarks.latency.regression import Row, compare_runs, read_baseline
from retinart.benchmarks.timing.results import Benchmark, ModelTimes
from retinart.benchmarks.timing.steps import Step, Steps
from retinart.calib.calibrate import calibrate
from retinart.calib.convert import convert
from retinart.calib.record import read_record
from retinart.calib.resume import Saved
from retinart.calib.settings import CalibrationSettings, ConvertSettings
from retinart.engine.common.typed_json import to_json
from retinart.engine.describe import describe_model, model_table
from retinart.engine.evaluation.annotation_files import read_annotations, write_coco
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.evaluation.problems import Problems
from retinart.engine.media.images import read_image
from retinart.engine.media.settings import LiveSettings, Selection
from retinart.engine.media.sources import open_source
from retinart.engine.model.info import read_info
from retinart.engine.tensorrt.engine_file import EngineInfo, engine_json
from retinart.export.array_pickle import load_arrays
from retinart.export.checkpoint import load_any
from retinart.export.export import export_checkpoint
from retinart.export.settings import ExportSettings
from retinart.train.data.check import load_checked
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings
from retinart.train.settings import TrainSettings, read_settings
from retinart.train.stopped_run import stopped_run
from retinart.train.trainer import train
from support import SCENES_CHECKPOINT, make_picture, torchvision_state, train_and_stop, write_video

SIZE = (64, 64)
MODELS = ("fp32", "int8", "half", "dynamic")
ROW = Row("a.onnx", "a.onnx", "00", ("fp32", None, 1, 1))  # that a benchmark is read for
YOLO_LABELS = b"0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.4 0.1 0.4 0.5 0.1 0.5\n"
VOC = b"""<annotation>
  <filename>a.png</filename>
  <size><width>64</width><height>64</height></size>
  <object><name>disc</name><difficult>0</difficult>
    <bndbox><xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
  <object><name>ring</name>
    <bndbox><xmin>1</xmin><ymin>9</ymin><xmax>20.5</xmax><ymax>64</ymax></bndbox></object>
</annotation>
"""
AREAS = b"""{"size": [64, 64], "anchor": "bottom",
 "regions": [{"name": "road", "points": [[0, 40], [60, 40], [60, 63]], "keep": "outside"}],
 "lines": [{"name": "in", "start": [0, 9], "end": [60, 9.5]}],
 "zones": [{"name": "hall", "points": [[0, 4], [6, 4], [6, 6]]}]}
"""
_FRAMES = 50  # that are read of a video


class Uses:
    """How commands read files. The folder holds what they need besides.

    Args:
        folder: `make_files` has filled it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scenes = folder / "scenes"
        self.float_file = folder / "fp32.onnx"
        self._image = read_image(min((self.scenes / "images").iterdir()))

    def inspect(self, path: Path) -> None:
        """As `inspect`."""
        json.dumps(describe_model(path))
        model_table(path)

    def detect(self, path: Path, runtime: Any = "openvino") -> None:
        """As `detect` with a model file."""
        from retinart.engine.detector import Detector

        model_table(path)
        with Detector(path, runtime=runtime, threads=1) as detector:
            for found in detector([self._image, self._image[:30]]):
                assert all(detector.classes[label] for label in found.class_id)

    def convert(self, path: Path) -> None:
        """As `convert`."""
        convert(path, self.folder / "c.onnx", ConvertSettings())

    def calibrate(self, path: Path) -> None:
        """As `calibrate` with a model file."""
        images = str(self.scenes / "images")
        calibrate(path, self.folder / "q.onnx", CalibrationSettings(images=images, num=1))

    def engine(self, path: Path) -> None:
        """As `inspect`, with the record beside an engine."""
        target = self.folder / "x.engine"
        target.write_bytes(b"plan")
        shutil.copyfile(path, engine_json(target))
        self.inspect(target)

    def record(self, path: Path) -> None:
        """As `calibrate --record`."""
        read_record(path)
        settings = CalibrationSettings(record=path)
        calibrate(self.float_file, self.folder / "again.onnx", settings)

    def kept_results(self, path: Path) -> None:
        """As `calibrate` after it was stopped."""
        state = Saved(path, key="a")
        state.set("more", state.get("observed"))

    def steps(self, path: Path) -> None:
        """As `curve` after it was stopped."""
        Steps(path, job="fuzz").put("b", Step(state="done", seconds=1, result=1))

    def baseline(self, path: Path) -> None:
        """As `benchmark --compare`."""
        compare_runs(made_benchmark(_model()), read_baseline(path, [ROW]), 1.1)

    def run_settings(self, path: Path) -> None:
        """As `train --resume`, with a run's settings."""
        of_run = self.folder / "other-run"
        of_run.mkdir(exist_ok=True)
        shutil.copyfile(path, of_run / "config.json")
        read_settings(of_run)

    def last(self, path: Path) -> None:
        """As `train --resume`, with a run's last checkpoint."""
        run = self.folder / "run"
        shutil.copyfile(path, run / "last.pt")
        settings = read_settings(run)
        if stopped_run(settings).state is not None:  # without one it would begin anew
            train(settings, resume=True)

    def coco(self, path: Path) -> None:
        """As `eval`, `train` and `data check`."""
        load_coco(path, self.scenes / "images")
        load_checked(path, self.scenes / "images", open_images=False)

    def annotations(self, path: Path) -> None:
        """As `eval` and `data convert` with annotations of YOLO or Pascal VOC."""
        images = self.scenes / "images"
        labels = self.folder / f"labels{path.suffix}"
        labels.mkdir(exist_ok=True)
        first = labels / min(images.iterdir()).name
        if path.suffix == ".yaml":
            shutil.copyfile(path, labels / "data.yaml")
            first.with_suffix(".txt").write_bytes(YOLO_LABELS)
        else:
            shutil.copyfile(path, first.with_suffix(path.suffix))
            (labels / "classes.txt").write_text("disc\nring\n")
        load_coco(labels, images)
        write_coco(read_annotations(labels, images, Problems()), self.folder / "coco.json")

    def scenes_again(self, path: Path) -> None:
        """As `make-scenes` into a folder that holds annotations."""
        scenes = self.folder / "scenes-again"
        scenes.mkdir(exist_ok=True)
        shutil.copyfile(path, scenes / "instances.json")
        make_scenes(scenes, num=2, seed=1, settings=SceneSettings(size=SIZE))

    def pickled(self, path: Path) -> None:
        """As `export` with a pickled checkpoint."""
        try:
            load_arrays(path.read_bytes())
        except pickle.UnpicklingError:
            load_any(path)  # says so

    def frames(self, path: Path) -> None:
        """As `detect` with a picture or a video."""
        source = open_source(
            str(path), source_index=0, selection=Selection(), settings=LiveSettings(),
            wake=threading.Event(), say=lambda text: None, time_stage=lambda stage, seconds: None,
        )  # fmt: skip
        try:
            for _ in itertools.takewhile(lambda _: not source.ended, range(_FRAMES)):
                source.take()
        finally:
            source.close()


def make_files(folder: Path) -> None:
    """Make the good files that take a model or a run."""
    scenes = folder / "scenes"
    make_scenes(scenes, num=2, seed=1, settings=SceneSettings(size=SIZE))
    float_file, int8, half, dynamic = (folder / f"{name}.onnx" for name in MODELS)
    fixed = ExportSettings(height=SIZE[0], width=SIZE[1], tensorrt=False)
    export_checkpoint(SCENES_CHECKPOINT, float_file, fixed)
    export_checkpoint(
        SCENES_CHECKPOINT, dynamic, ExportSettings(imgsz=SIZE[0], dynamic=True, tensorrt=False)
    )
    calibrate(float_file, int8, CalibrationSettings(images=str(scenes / "images"), num=2))
    convert(float_file, half, ConvertSettings())
    settings = TrainSettings(
        annotations=scenes / "instances.json", images=scenes / "images", epochs=1, batch_size=2,
        size=SIZE, workers=0, threads=1, runs=folder, name="run",
    )  # fmt: skip
    train_and_stop(settings)
    Steps(folder / "steps.json", job="fuzz").put("b", Step(state="done", seconds=1, result=1))
    Saved(folder / "saved.json", key="a").set("observed", {"x": [1, 2]})
    for suffix in (".avi", ".mp4"):
        write_video(folder / f"video{suffix}", frames=4, size=(32, 48))


def pictures() -> Sequence[bytes]:
    """Small pictures in the formats that are read, animated ones among them."""
    frames = [Image.fromarray(make_picture(seed, 24, 32)) for seed in (1, 2)]

    def saved(kind: str, **more: Any) -> bytes:
        target = io.BytesIO()
        frames[0].save(target, kind, **more)
        return target.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6
    several = {"save_all": True, "append_images": frames[1:]}
    return [
        saved("PNG"), saved("JPEG", exif=exif), saved("BMP"), saved("PPM"), saved("TIFF"),
        saved("TIFF", compression="tiff_lzw"), saved("WEBP"), saved("GIF", **several),
        saved("PNG", **several), saved("WEBP", **several),
    ]  # fmt: skip


def foreign_checkpoint() -> bytes:
    """A checkpoint of another project."""
    import torch

    target = io.BytesIO()
    torch.save({"model": torchvision_state()}, target)
    return target.getvalue()


def arrays() -> bytes:
    """A pickle of arrays, as detectron2 writes."""
    weights = {f"layer{i}": np.arange(6, dtype=np.float32).reshape(2, 3) for i in range(4)}
    return pickle.dumps({"model": weights, "__author__": "x"}, protocol=2)


def baseline() -> bytes:
    """A benchmark's result."""
    made: Benchmark = made_benchmark(_model())
    return json.dumps(to_json(made)).encode()


def _model() -> ModelTimes:
    return model_times(**times(50, runs=6))


def engine_record(model: Path) -> bytes:
    """What stands beside an engine."""
    shape = (1, *SIZE, 3)
    info = EngineInfo(
        model=read_info(model), runtime="tensorrt", version="10.16.1", gpu="NVIDIA Made-up",
        compute_capability="8.9", profile=(shape, shape, shape), nms="graph",
        version_compatible=False, hardware_compatible=False, build_seconds=1.5,
        plan_sha256="0" * 64, onnx_sha256="0" * 64, rebuild="retinart build m.onnx -o m.engine",
    )  # fmt: skip
    return info.to_json().encode()
