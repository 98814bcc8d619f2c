"""A folder for Triton: the configuration, the files of one version, and what a client needs.

Triton's documentation of the model configuration has the fields: model_configuration.md in
github.com/triton-inference-server/server.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinart.engine.common.files import sha256
from retinart.engine.errors import BadInput
from retinart.engine.model.info import INPUT, OUTPUTS, ModelInfo
from retinart.engine.tensorrt.engine_file import EngineInfo, check_plan, read_engine_info
from retinart.export.bundle.pbtxt import Symbol, entries, pbtxt
from retinart.export.bundle.settings import Backend, BundleSettings
from retinart.export.openvino_ir import write_ir

VERSION = "1"
LABELS = "labels.txt"
REPOSITORY = "repository"  # beside what is not for Triton
NETWORK = "retinart_network.py"  # runs the IR, in Triton's Python and in KServe's predictor
_QUEUE_DELAY = 2000  # microseconds that a request may wait for others to share its batch
_FILES: dict[Backend, str] = {
    "tensorrt": "model.plan",
    "onnxruntime": "model.onnx",
    "openvino": "model.xml",
    "python": "model.py",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An engine that goes into a bundle.

    Attributes:
        path: the engine.
        info: its metadata.
        data: its bytes.
    """

    path: Path
    info: EngineInfo
    data: bytes

    @property
    def capability(self) -> str | None:
        """The compute capability that it needs; None if it runs on all from Ampere's on."""
        return None if self.info.hardware_compatible else self.info.compute_capability

    @property
    def filename(self) -> str:
        """Its name in the bundle."""
        return f"model_cc{self.capability}.plan" if self.capability else _FILES["tensorrt"]


def read_plans(model: Path, engines: Sequence[Path]) -> list[Plan]:
    """Engines of one model, for different GPUs.

    Raises:
        BadInput: an engine is damaged, is of another model or of TensorRT-RTX, or two are for the
            same GPUs.
    """
    source = sha256(model) if engines else ""
    plans: list[Plan] = []
    for path in engines:
        info = read_engine_info(path)
        if info.runtime != "tensorrt":
            raise BadInput(
                f"Triton cannot load {path}",
                why="TensorRT-RTX built it, and Triton has TensorRT",
                fix="Build it with `retinart build --runtime tensorrt`",
            )
        if info.onnx_sha256 != source:
            raise BadInput(
                f"{path} was built from another file than {model}",
                why="their hashes differ, and the configuration would describe the wrong model",
                fix=f"Give the file that it was built from, or build it again: {info.rebuild}",
            )
        if info.profile[0][0] != 1:
            raise BadInput(
                f"{path} takes no single image",
                why=f"its smallest batch is {info.profile[0][0]}, and a server also has one image",
                fix="Build it with `retinart build --batch 1 4 8`",
            )
        plan = Plan(path=path, info=info, data=check_plan(path, info))
        if other := next((p for p in plans if p.filename == plan.filename), None):
            raise BadInput(
                f"{other.path} and {path} are for the same GPUs",
                why=f"both run on compute capability {plan.capability or '8.0 and later'}",
                fix="Give one of them",
            )
        plans.append(plan)
    return plans


def write_triton(
    folder: Path, model: Path, info: ModelInfo, plans: Sequence[Plan], settings: BundleSettings
) -> tuple[str, Backend, str]:
    """Write a model repository.

    Args:
        folder: an empty folder.

    Returns:
        The model's name, the backend that runs it, and what must be known where it runs.
    """
    backend: Backend = settings.backend
    if backend == "auto":
        backend = "tensorrt" if plans else "onnxruntime"
    if bool(plans) != (backend == "tensorrt"):
        raise BadInput(
            "engines and the backend tensorrt go together",
            why=f"there are {len(plans)} engines, and the backend is {backend}",
            fix="Leave `backend` out" if plans else "Give engines, or leave `backend` out",
        )
    takes_winograd = backend in ("openvino", "python") or settings.server == "kserve"
    if settings.winograd and not takes_winograd:
        raise BadInput(
            f"the backend {backend} does not take `winograd`",
            why="Winograd's algorithm is written in OpenVINO's graph",
            fix="Choose the backend openvino or python, or leave `winograd` out",
        )
    if backend == "onnxruntime" and info.precision.startswith("fp8"):
        raise BadInput(
            f"ONNX Runtime in a server cannot run {model}",
            why="it holds FP8, and ONNX Runtime fuses its nodes to ones with other results",
            fix="Give engines that were built from it, or take an INT8 file",
        )
    name = settings.name_for(model.stem)
    batch = min([settings.max_batch, *(plan.info.profile[2][0] for plan in plans)])
    version = folder / name / VERSION
    version.mkdir(parents=True)
    note = ""
    if backend == "tensorrt":
        for plan in plans:
            (version / plan.filename).write_bytes(plan.data)
    elif backend == "onnxruntime":
        shutil.copyfile(model, version / _FILES[backend])
    else:
        note = write_ir(model, version / "model.xml", winograd=settings.winograd).note
        if backend == "python":
            here = Path(__file__).parent
            shutil.copyfile(here / "triton_model.py", version / _FILES[backend])
            shutil.copyfile(here / NETWORK, version / NETWORK)
    config = pbtxt(triton_config(name, info, backend, plans, batch))
    (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (folder / name / LABELS).write_text(label_lines(info), encoding="utf-8")
    return name, backend, note


def label_lines(info: ModelInfo) -> str:
    """Class names, one a line."""
    return "".join(f"{' '.join(label.split())}\n" for label in info.classes)


def triton_config(
    name: str, info: ModelInfo, backend: Backend, plans: Sequence[Plan], max_batch: int
) -> dict[str, Any]:
    """The fields of `config.pbtxt`."""
    canvas = info.resize.canvas
    most = info.thresholds.detections_per_img
    shapes = ([1], [most, 4], [most], [most])
    types = ("INT32", "FP32", "FP32", "INT32")
    config: dict[str, Any] = {
        "name": name,
        "backend": backend,
        "max_batch_size": max_batch,
        "default_model_filename": _default(plans) if plans else _FILES[backend],
    }
    named = {p.capability: p.filename for p in plans if p.capability}
    if named:
        config["cc_model_filenames"] = [{"key": cc, "value": file} for cc, file in named.items()]
    config["input"] = [
        {
            "name": INPUT,
            "data_type": Symbol("TYPE_UINT8"),
            "dims": [*(canvas or (-1, -1)), 3],
        }
    ]
    config["output"] = [
        {"name": output, "data_type": Symbol(f"TYPE_{kind}"), "dims": dims}
        for output, kind, dims in zip(OUTPUTS, types, shapes, strict=True)
    ]
    if max_batch > 1:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": _QUEUE_DELAY}
    kind = "KIND_GPU" if backend == "tensorrt" else "KIND_CPU"
    config["instance_group"] = [{"kind": Symbol(kind), "count": 1}]
    zeros = {
        "data_type": Symbol("TYPE_UINT8"),
        "dims": [*(canvas or info.min_size), 3],
        "zero_data": True,
    }
    config["model_warmup"] = [
        {"name": f"batch_{n}", "batch_size": n, "inputs": entries({INPUT: zeros})}
        for n in sorted({1, max_batch})
    ]
    if backend == "python":
        hint = {"string_value": "f32"}
        config["parameters"] = entries({"INFERENCE_PRECISION_HINT": hint})
    return config


def _default(plans: Sequence[Plan]) -> str:
    """The engine that Triton takes where none is named for its GPU."""
    return next((p.filename for p in plans if p.capability is None), plans[0].filename)
