"""The layers of an engine: what each computes in, and how long it takes."""

from __future__ import annotations

import contextlib
import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinart.engine.common.table import Table
from retinart.engine.common.wording import counted
from retinart.engine.cuda.api import Cuda
from retinart.engine.tensorrt.api import IExecutionContext, TensorRT
from retinart.engine.tensorrt.engine_file import EngineInfo, read_engine_info
from retinart.engine.tensorrt.lane import Lane
from retinart.engine.tensorrt.plan import Plan
from retinart.engine.tensorrt.runner import load_parts

RUNS = 20
_WIDEST = 60  # letters of a name in the table; the JSON has all
_WARM_UP = 3  # runs that are not counted
# how an inspector's words for a type begin or end, and the type
_TYPES = (
    (r"int8", "int8"), (r"fp8|float8", "fp8"), (r"bf16|bfloat16", "bf16"), (r"fp16|half", "fp16"),
    (r"fp32|float", "fp32"), (r"int64", "int64"), (r"int32", "int32"), (r"uint8", "uint8"),
    (r"bool", "bool"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as TensorRT made it, often of many nodes.

    Attributes:
        name: TensorRT's, which holds those of the nodes.
        kind: such as "CaskConvolution" or "Reformat"; "" if the plan does not say.
        inputs, outputs: types of its tensors, each once, such as ("int8",).
        ms: mean time of a run; None if the profiler did not report it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ms: float | None

    @property
    def is_reformat(self) -> bool:
        """Whether the layer only moves data into another layout or type."""
        return "reformat" in f"{self.kind} {self.name}".lower()


def read_layers(path: Path, gpu: int = 0, runs: int = RUNS) -> list[Layer]:
    """The layers of an engine, timed on a GPU with its profile's best shape.

    The frames are noise, so NMS has little to do. With a profiler each layer runs by itself, so
    their sum is more than a run takes.

    Args:
        path: the engine.
        gpu: the driver's number.
        runs: how many runs the times are means of.

    Raises:
        BadInput: the engine does not fit this machine.
        MissingDependency: no GPU, no TensorRT, or no Python package for CUDA.
    """
    info = read_engine_info(path)
    data, trt, cuda = load_parts(path, info, gpu)
    return profile(data, info, trt, cuda, runs)


def profile(data: bytes, info: EngineInfo, trt: TensorRT, cuda: Cuda, runs: int) -> list[Layer]:
    """The same of a plan's bytes; `cuda` is closed."""
    times = _Times()
    with ExitStack() as parts:
        parts.callback(cuda.close)
        parts.enter_context(cuda.current())
        plan = parts.enter_context(contextlib.closing(_ProfiledPlan(trt, data, info, times)))
        lane = parts.enter_context(contextlib.closing(Lane(cuda, plan, graphs=False)))
        noise = np.random.default_rng(0)
        lane.load(noise.integers(0, 256, info.profile[1], np.uint8))
        for run in range(_WARM_UP + runs):
            if run == _WARM_UP:
                times.sums.clear()
            lane.start()
            lane.finish()
        return [_layer(text, times.sums, runs) for text in plan.descriptions()]


class _Times:
    """Sums of milliseconds by the name of a layer."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def profiler(self, trt: TensorRT) -> Any:
        sums = self.sums

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # found at run time
            def report_layer_time(self, layer_name: str, ms: float) -> None:
                sums[layer_name] = sums.get(layer_name, 0.0) + ms

        return Profiler()


class _ProfiledPlan(Plan):
    """A plan whose contexts report the time of every layer."""

    def __init__(self, trt: TensorRT, data: bytes, info: EngineInfo, times: _Times) -> None:
        super().__init__(trt, data, info)
        self._profiler = times.profiler(trt)

    def new_context(self) -> IExecutionContext:
        context = super().new_context()
        context.profiler = self._profiler
        return context

    def descriptions(self) -> list[str]:
        """What TensorRT's inspector says of each layer, in JSON."""
        inspector = self._engine.create_engine_inspector()
        form = self._trt.LayerInformationFormat.JSON
        count = self._engine.num_layers
        return [inspector.get_layer_information(i, form) for i in range(count)]


def _layer(text: str, sums: dict[str, float], runs: int) -> Layer:
    """A layer of an inspector's JSON: a record, or its name where the plan says no more."""
    try:
        said = json.loads(text)
    except ValueError:
        said = text.strip()
    record = said if isinstance(said, dict) else {"Name": str(said)}
    name = str(record.get("Name", ""))
    return Layer(
        name=name,
        kind=str(record.get("LayerType", "")),
        inputs=_types(record.get("Inputs")),
        outputs=_types(record.get("Outputs")),
        ms=sums[name] / runs if name in sums else None,
    )


def _types(tensors: object) -> tuple[str, ...]:
    """The types of an inspector's tensors, each once."""
    found: dict[str, None] = {}
    for tensor in tensors if isinstance(tensors, list) else []:
        text = str(tensor.get("Format/Datatype", "")) if isinstance(tensor, dict) else ""
        kind = next((k for words, k in _TYPES if re.search(rf"\b({words})\b", text, re.I)), text)
        found |= {kind: None} if kind else {}
    return tuple(found)


def layer_table(layers: list[Layer]) -> str:
    """The layers as text, in their order, and a line with their sums."""
    total = sum(layer.ms or 0.0 for layer in layers)
    rows = [
        (
            layer.name if len(layer.name) <= _WIDEST else f"{layer.name[: _WIDEST - 3]}...",
            layer.kind,
            " ".join(layer.inputs),
            " ".join(layer.outputs),
            "" if layer.ms is None else f"{layer.ms:.3f}",
            "" if layer.ms is None or not total else f"{100 * layer.ms / total:.1f}",
        )
        for layer in layers
    ]
    table = Table(head=("layer", "kind", "reads", "writes", "ms", "% of all"), rows=rows, words=4)
    moves = [layer for layer in layers if layer.is_reformat]
    sums = (
        f"{counted(len(layers), 'layer')}, {total:.3f} ms; of these "
        f"{counted(len(moves), 'reformat')}, {sum(m.ms or 0.0 for m in moves):.3f} ms"
    )
    return f"{table.text()}\n\n{sums}"
