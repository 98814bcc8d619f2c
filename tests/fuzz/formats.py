"""The formats that are fuzzed: a good file, how it is damaged, and what reads it."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuzz import mutators
from fuzz.children import run
from fuzz.mutators import Mutator
from retinart.benchmarks.timing.steps import Step, Steps
from retinart.calib.calibrate import calibrate
from retinart.calib.convert import convert
from retinart.calib.record import read_record
from retinart.calib.resume import Saved
from retinart.calib.settings import CalibrationSettings, ConvertSettings
from retinart.cli.export import read_names
from retinart.engine.describe import describe_model, model_table
from retinart.engine.evaluation.coco import load_coco
from retinart.engine.media.images import read_image
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

ROOT = Path(__file__).resolve().parents[2]
SIZE = (64, 64)
MODELS = ("fp32", "int8", "half", "dynamic")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        name: for people.
        suffix: of its files.
        good: bytes of good files.
        damage: makes a bad file of one.
        use: reads a file as a command does.
    """

    name: str
    suffix: str
    good: Sequence[bytes]
    damage: Mutator
    use: Callable[[Path], object]

    def make(self, rng: random.Random) -> bytes:
        """The input that a generator draws."""
        return self.damage(rng.choice(self.good), rng)


def formats(folder: Path) -> list[Format]:
    """All formats. The good files are made in a folder, which takes some seconds."""
    tiny = ROOT / "train" / "assets" / "tiny.pt"
    made = run(lambda: _make_models(tiny, folder), seconds=600)  # OpenVINO's threads end with it
    assert made.kind == "0", made
    models = [folder / f"{name}.onnx" for name in MODELS]
    float_file, int8 = models[0], models[1]
    scenes, record = folder / "scenes", int8.with_suffix(".json")
    image = read_image(min((scenes / "images").iterdir()))
    annotations = scenes / "instances.json"
    settings = TrainSettings(annotations=annotations, images=scenes / "images")
    model_bytes = [path.read_bytes() for path in models]

    def detect(path: Path, runtime: Any = "openvino") -> None:
        from retinart.engine.detector import Detector

        model_table(path)
        with Detector(path, runtime=runtime, threads=1) as detector:
            for found in detector([image, image[:30]]):
                assert all(detector.classes[label] for label in found.class_id)

    def inspect(path: Path) -> None:
        json.dumps(describe_model(path))
        model_table(path)

    def engine(path: Path) -> None:
        target = folder / "x.engine"
        target.write_bytes(b"plan")
        shutil.copyfile(path, engine_json(target))
        inspect(target)

    def saved(path: Path) -> None:
        state = Saved(path, key="a")
        state.set("more", state.get("observed"))

    def steps(path: Path) -> None:
        Steps(path, job="fuzz").put("b", Step(state="done", seconds=1, result=1))

    def config(path: Path) -> None:
        of_run = folder / "run"
        of_run.mkdir(exist_ok=True)
        shutil.copyfile(path, of_run / "config.json")
        read_settings(of_run)

    def from_record(path: Path) -> None:
        read_record(path)
        calibrate(float_file, folder / "again.onnx", CalibrationSettings(record=path))

    def coco(path: Path) -> None:
        load_coco(path, scenes / "images")
        load_checked(path, scenes / "images", open_images=False)

    def pickled(path: Path) -> None:
        try:
            load_arrays(path.read_bytes())
        except pickle.UnpicklingError:
            load_any(path)  # says so

    images = str(scenes / "images")
    steps_file, saved_file = folder / "steps.json", folder / "saved.json"
    steps(steps_file)
    Saved(saved_file, key="a").set("observed", {"x": [1, 2]})
    run_settings = json.dumps(settings.to_json()).encode()

    def onnx(name: str, use: Callable[[Path], object]) -> Format:
        good, damage = model_bytes, mutators.any_onnx
        return Format(name=name, suffix=".onnx", good=good, damage=damage, use=use)

    def plain(name: str, good: bytes, use: Callable[[Path], object]) -> Format:
        return Format(name=name, suffix=".json", good=[good], damage=mutators.any_json, use=use)

    return [
        onnx("ONNX inspect", inspect),
        onnx("ONNX OpenVINO", detect),
        onnx("ONNX ONNX Runtime", lambda path: detect(path, "onnxruntime")),
        onnx("ONNX convert", lambda p: convert(p, folder / "c.onnx", ConvertSettings())),
        onnx(
            "ONNX calibrate",
            lambda p: calibrate(p, folder / "q.onnx", CalibrationSettings(images=images, num=1)),
        ),
        plain("engine's record", _engine_record(float_file), engine),
        plain("calibration record", record.read_bytes(), from_record),
        plain("kept steps", steps_file.read_bytes(), steps),
        plain("kept results", saved_file.read_bytes(), saved),
        plain("run's settings", run_settings, config),
        plain("COCO", annotations.read_bytes(), coco),
        Format(
            name="checkpoint", suffix=".pt", good=[tiny.read_bytes()],
            damage=mutators.any_checkpoint, use=load_any,
        ),
        Format(
            name="pickle", suffix=".pkl", good=[mutators.arrays()],
            damage=mutators.any_pickle, use=pickled,
        ),
        Format(
            name="class names", suffix=".txt", good=[b"disc\nring\n", "Größe\n".encode()],
            damage=mutators.any_text, use=read_names,
        ),
    ]  # fmt: skip


def _make_models(checkpoint: Path, folder: Path) -> None:
    scenes, size = folder / "scenes", SceneSettings(size=SIZE)
    make_scenes(scenes, num=2, seed=1, settings=size)
    float_file, int8, half, dynamic = (folder / f"{name}.onnx" for name in MODELS)
    export_checkpoint(
        checkpoint, float_file, ExportSettings(height=SIZE[0], width=SIZE[1], tensorrt=False)
    )
    export_checkpoint(
        checkpoint, dynamic, ExportSettings(imgsz=SIZE[0], dynamic=True, tensorrt=False)
    )
    calibrate(float_file, int8, CalibrationSettings(images=str(scenes / "images"), num=2))
    convert(float_file, half, ConvertSettings())


def _engine_record(model: Path) -> bytes:
    shape = (1, *np.array(SIZE).tolist(), 3)
    info = EngineInfo(
        model=read_info(model), runtime="tensorrt", version="10.16.1", gpu="NVIDIA Made-up",
        compute_capability="8.9", profile=(shape, shape, shape), nms="graph",
        version_compatible=False, hardware_compatible=False, build_seconds=1.5,
        plan_sha256="0" * 64, onnx_sha256="0" * 64, rebuild="retinart build m.onnx -o m.engine",
    )  # fmt: skip
    return info.to_json().encode()
