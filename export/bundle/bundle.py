"""From a model file to a folder that a server loads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retinart.engine.common.files import atomic_folder, write_json
from retinart.engine.errors import BadInput
from retinart.engine.model.info import OUTPUTS, ModelInfo, read_info
from retinart.export.bundle.deepstream import write_deepstream
from retinart.export.bundle.kserve import write_kserve
from retinart.export.bundle.settings import BundleSettings
from retinart.export.bundle.triton import VERSION, read_plans, write_triton
from retinart.export.openvino_ir import write_ir


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """A bundle that was written.

    Attributes:
        path: the folder.
        name: of the model in the server.
        backend: what runs it there.
        note: what must be known where it runs; "" for nothing.
        gpus: compute capabilities that its engines run on; "" without engines.
    """

    path: Path
    name: str
    backend: str
    gpus: str = ""
    note: str = ""


def make_bundle(
    model: Path, engines: Sequence[Path], output: Path, settings: BundleSettings
) -> BundleReport:
    """Write the folder that a server loads.

    Args:
        model: an ONNX file of retinart.
        engines: TensorRT engines of it, for Triton, KServe and DeepStream.
        output: the folder. It appears when it is whole.

    Raises:
        BadInput: the folder exists, or the model, an engine and the server do not fit together.
    """
    if output.exists() or output.is_symlink():
        raise BadInput(
            f"{output} exists",
            why="a server could be reading it",
            fix="Give a new folder, and rename it when the server has stopped",
        )
    info = read_info(model)
    if engines and settings.server == "openvino-model-server":
        raise BadInput(
            "OpenVINO Model Server runs no engines", fix="Leave the engines out, or take Triton"
        )
    plans = read_plans(model, engines)
    note = ""
    with atomic_folder(output) as folder:
        if settings.server == "openvino-model-server":
            (name, note), backend = _write_model_server(folder, model, settings), "openvino"
        elif settings.server == "deepstream":
            name, backend = write_deepstream(folder, model, info, plans, settings), "tensorrt"
        elif settings.server == "kserve":
            name, backend, note = write_kserve(folder, model, info, plans, settings)
        else:
            name, backend, note = write_triton(folder, model, info, plans, settings)
        if settings.server != "deepstream":
            _write_client(folder, name, info)
    gpus = ", ".join(sorted(plan.capability or "8.0 and later" for plan in plans))
    return BundleReport(path=output, name=name, backend=backend, gpus=gpus, note=note)


def _write_model_server(folder: Path, model: Path, settings: BundleSettings) -> tuple[str, str]:
    """Write for OpenVINO Model Server; returns the model's name and the IR's note."""
    name = settings.name_for(model.stem)
    ir = write_ir(model, folder / name / VERSION / "model.xml", winograd=settings.winograd)
    config = {
        "name": name,
        "base_path": name,  # from the configuration's folder
        # a CPU with bf16 would otherwise compute in it
        "plugin_config": {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"},
    }
    write_json(folder / "config.json", {"model_config_list": [{"config": config}]}, indent=1)
    return name, ir.note


def _write_client(folder: Path, name: str, info: ModelInfo) -> None:
    """Write an example of a client, and what it must know of the model."""
    shutil.copyfile(Path(__file__).with_name("client.py"), folder / "client.py")
    content = {
        "name": name,
        "classes": info.classes,
        "outputs": OUTPUTS,
        "resize": dataclasses.asdict(info.resize),
    }
    (folder / "model.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
