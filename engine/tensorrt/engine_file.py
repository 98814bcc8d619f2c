"""An engine and the `model.engine.json` beside it: what it is, and whether it can run here.

The plan stays plain, so trtexec and Triton can run it (docs/tensorrt.md). The JSON holds what
retinart must know of it. These checks find a wrong file, version or GPU before a runtime is
touched.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from retinart.engine.common.bounded_reading import MIB, parse_json, read_bytes, read_text
from retinart.engine.common.typed_json import from_json, from_plain
from retinart.engine.cuda.devices import Gpu
from retinart.engine.errors import BadInput, MissingDependency, pip_command
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.resize_rule import SIDES
from retinart.engine.tensorrt.api import TITLES, EngineRuntime

ENGINE_SUFFIXES = frozenset((".engine", ".plan", ".trt"))
SCHEMA = 2
_MOST = 16_384 * MIB  # of an engine
AMPERE = (8, 0)  # the first compute capability that engines for many GPUs run on

REBUILD = "Build it again with `retinart build model.onnx -o model.engine`"
FrameShape = tuple[int, int, int, int]
# retinart's plugin, the plugin EfficientNMS_TRT, or the nodes of the file
NmsForm = Literal["plugin", "efficient", "graph"]
_OLD_FORMS = {"native": "graph", "plugin": "efficient"}  # the names of schema 1


def take_tensorrt() -> str:
    """What to do where an engine of TensorRT-RTX cannot run."""
    return (
        "Build it on this machine with `retinart build --runtime tensorrt`, which takes TensorRT: "
        f"`{pip_command('tensorrt')}` in retinart's folder"
    )


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The metadata of an engine.

    Attributes:
        model: the metadata of the ONNX file that it was built from.
        runtime: the one that built it, and runs it.
        version: of that runtime.
        gpu: the GPU that it was built on; None when it was built without one.
        compute_capability: of that GPU, such as "8.9".
        profile: smallest, optimal and largest (N, H, W, 3) of the frames.
        nms: the form of NMS in it.
        version_compatible: it also runs on later versions, up to the next major one.
        hardware_compatible: it also runs on other GPUs from Ampere on.
        build_seconds: how long parsing and building took.
        plan_sha256, onnx_sha256: of the engine and of the ONNX file.
        rebuild: the command that made it.
    """

    model: ModelInfo
    runtime: EngineRuntime
    version: str
    gpu: str | None
    compute_capability: str | None
    profile: tuple[FrameShape, FrameShape, FrameShape]
    nms: NmsForm
    version_compatible: bool
    hardware_compatible: bool
    build_seconds: float
    plan_sha256: str
    onnx_sha256: str
    rebuild: str

    def __post_init__(self) -> None:
        sizes = list(zip(*self.profile, strict=True))  # of batch, height, width and channels
        if not all(0 < low <= best <= high <= SIDES[-1] for low, best, high in sizes):
            raise ValueError(f"its profile is {self.profile}")
        (_, *low, _), (_, *high, channels) = self.profile[0], self.profile[2]
        if channels != 3 or tuple(low) != self.model.min_size or tuple(high) != self.model.max_size:
            raise ValueError(
                f"its profile is {self.profile}, and its model takes {self.model.min_size} to "
                f"{self.model.max_size} pixels"
            )
        if not numbers(self.version) or self.build_seconds < 0:
            raise ValueError(f"its version is {self.version}, built in {self.build_seconds} s")
        if self.compute_capability is not None and not numbers(self.compute_capability):
            raise ValueError(f"its compute capability is {self.compute_capability}")

    def to_json(self) -> str:
        """The text of `model.engine.json`."""
        engine = {k: v for k, v in asdict(self).items() if k != "model"}
        model = json.loads(self.model.to_json())
        return json.dumps({"schema": SCHEMA, "engine": engine, "model": model}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> EngineInfo:
        """Read what `to_json` wrote; `name` is the file's, for errors."""
        try:
            parts = from_json(_Parts, _from_schema_1(parse_json(text)), name)
        except ValueError as error:
            raise BadInput(f"{name} is damaged", why=str(error), fix=REBUILD) from error
        model = ModelInfo.from_data(parts.model, f"the model's record in {name}")
        return from_plain(cls, {**parts.engine, "model": model}, name, fix=REBUILD)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    engine: dict[str, Any]
    model: dict[str, Any]

    SCHEMA: ClassVar[int] = SCHEMA
    AGAIN: ClassVar[str] = REBUILD


def _from_schema_1(data: Any) -> Any:
    """A record of today's schema. Schema 1 has other names for the forms of NMS."""
    if not isinstance(data, dict) or data.get("schema") != 1:
        return data
    engine = data.get("engine")
    if isinstance(engine, dict) and isinstance(form := engine.get("nms"), str):
        data = {**data, "engine": {**engine, "nms": _OLD_FORMS.get(form, form)}}
    return {**data, "schema": SCHEMA}


def is_engine(path: Path) -> bool:
    """Whether a path has an engine's suffix."""
    return path.suffix.lower() in ENGINE_SUFFIXES


def engine_json(path: Path) -> Path:
    """Where the metadata of the engine at `path` stands."""
    return path.with_name(f"{path.name}.json")


def read_engine_info(path: Path) -> EngineInfo:
    """The metadata of an engine, without loading it.

    Raises:
        BadInput: the engine or its metadata is missing, or the metadata is damaged.
    """
    beside = engine_json(path)
    if not path.is_file():
        raise BadInput(f"there is no engine at {path}", fix="Check the path")
    if not beside.exists():
        raise BadInput(
            f"{path} has no {beside.name} beside it",
            why="its input, classes and thresholds stand there",
            fix=f"Copy both files together. {REBUILD}",
        )
    return EngineInfo.from_json(read_text(beside, noun="record", fix=REBUILD), str(beside))


def check_plan(path: Path, info: EngineInfo) -> bytes:
    """The plan's bytes, after comparing them with the metadata.

    Raises:
        BadInput: the metadata describes another plan.
    """
    data = read_bytes(path, noun="engine", most=_MOST, fix=REBUILD)
    if hashlib.sha256(data).hexdigest() != info.plan_sha256:
        raise BadInput(
            f"{path} is not the engine that {engine_json(path).name} describes",
            why="their hashes differ: one of the two was replaced or damaged",
            fix=f"Copy both files together, or build again: {info.rebuild}",
        )
    return data


def check_version(path: Path, info: EngineInfo, version: str) -> None:
    """Check that the installed runtime runs this engine.

    Raises:
        BadInput: it has another version.
    """
    runs = version == info.version
    if info.version_compatible:
        here, built = numbers(version), numbers(info.version)
        runs = here >= built and here[0] <= built[0] + 1  # as NVIDIA's support matrix has it
    if not runs:
        title = TITLES[info.runtime]
        raise BadInput(
            f"{path} was built by {title} {info.version}, and {title} {version} is installed",
            why="an engine runs on the version that built it, and a version-compatible one also on "
            "later ones, up to the next major one",
            fix=f"Build it again here: {info.rebuild}",
        )


def check_gpu(
    path: Path, info: EngineInfo, gpus: Sequence[Gpu], index: int, known: Sequence[str] = ()
) -> Gpu:
    """The GPU to run on, after checking that this engine runs there.

    Args:
        known: the compute capabilities that the runtime is limited to; see `known_capabilities`.

    Raises:
        MissingDependency: this machine has no GPU.
        BadInput: no GPU has that number, or it has another compute capability.
    """
    if not gpus:
        raise MissingDependency(
            f"{path} needs an NVIDIA GPU, and there is none here",
            why="NVIDIA's driver is not installed, or finds no GPU",
            fix="Run it on a machine with a GPU, or run the ONNX file on this one's CPU",
        )
    gpu = next((gpu for gpu in gpus if gpu.index == index), None)
    if gpu is None:
        known = ", ".join(str(gpu.index) for gpu in gpus)
        raise BadInput(f"there is no GPU {index} that works", fix=f"Choose one of {known}")
    if known and gpu.compute_capability not in known:
        raise BadInput(
            f"{path} cannot run on {gpu.name}",
            why=f"{TITLES[info.runtime]} runs on compute capability {', '.join(known)}, and it has "
            f"{gpu.compute_capability}",
            fix=take_tensorrt(),
        )
    here = numbers(gpu.compute_capability)
    any_ampere = info.hardware_compatible or info.compute_capability is None
    if any_ampere and here < AMPERE:
        raise BadInput(
            f"{path} runs on GPUs from Ampere on (compute capability 8.0), and {gpu.name} has "
            f"{gpu.compute_capability}",
            fix=f"Build it again here, for this GPU alone: {info.rebuild}"
            if info.hardware_compatible
            else take_tensorrt(),
        )
    if not any_ampere and info.compute_capability != gpu.compute_capability:
        raise BadInput(
            f"{path} was built for compute capability {info.compute_capability} ({info.gpu}), and "
            f"{gpu.name} has {gpu.compute_capability}",
            why="an engine runs on the kind of GPU that built it, unless it is hardware-compatible",
            fix=f"Build it again here: {info.rebuild}",
        )
    return gpu


def numbers(version: str) -> tuple[int, ...]:
    """A version or compute capability, to be compared: "8.10" is above "8.9"."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
