"""The table of an engine's layers: what TensorRT's inspector and profiler say. On doubles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import PLAN, FakeTensorRT, engine_info

from recording_gpu import RecordingCuda
from retinart.cli import main
from retinart.engine.tensorrt import layers
from retinart.engine.tensorrt.engine_file import engine_json
from retinart.engine.tensorrt.layers import Layer, profile

INT8, HALF = "Thirty-two wide channel vectorized row major Int8 format", "Half"


def described(name: str, kind: str, reads: str, writes: str) -> str:
    tensors = [[{"Name": "t", "Format/Datatype": text}] for text in (reads, writes)]
    return json.dumps(
        {"Name": name, "LayerType": kind, "Inputs": tensors[0], "Outputs": tensors[1]}
    )


@pytest.fixture
def trt(model_path: Path) -> FakeTensorRT:
    one = FakeTensorRT(model_path, RecordingCuda())
    one.layers = [
        described("Reformatting CopyNode for Input", "Reformat", "Row major linear FP32", HALF),
        described("conv1 + relu", "CaskConvolution", HALF, INT8),
        '"a name alone"',
    ]
    slow, fast = {"conv1 + relu": 90.0}, {"conv1 + relu": 3.0, "a name alone": 1.0}
    one.times = [slow] * 3 + [fast, {**fast, "conv1 + relu": 5.0}]
    return one


def test_types_and_times(trt: FakeTensorRT, model_path: Path) -> None:
    """The first runs do not count; what the profiler leaves out has no time."""
    runtime: Any = trt
    cuda: Any = trt.cuda
    found = profile(PLAN, engine_info(model_path), runtime, cuda, runs=2)
    reformat, convolution, bare = found
    assert (reformat.inputs, reformat.outputs, reformat.ms) == (("fp32",), ("fp16",), None)
    assert reformat.is_reformat and not convolution.is_reformat
    assert (convolution.inputs, convolution.outputs) == (("fp16",), ("int8",))
    assert convolution.kind == "CaskConvolution" and convolution.ms == 4.0
    assert bare == Layer(name="a name alone", kind="", inputs=(), outputs=(), ms=1.0)
    assert trt.cuda.closed and not trt.cuda.alive, "everything is given back"
    assert not trt.times, "three runs to warm up, and two that count"


def test_the_command(
    trt: FakeTensorRT, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine = tmp_path / "model.engine"
    engine.write_bytes(PLAN)
    engine_json(engine).write_text(engine_info(model_path).to_json())
    monkeypatch.setattr(layers, "load_parts", lambda path, info, gpu: (PLAN, trt, trt.cuda))
    trt.times = [{"conv1 + relu": 3.0, "a name alone": 1.0}] * 23
    assert main(["inspect", str(engine), "--layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "reads", "writes", "ms", "%", "of", "all"]
    assert lines[2].split()[-5:] == ["CaskConvolution", "fp16", "int8", "3.000", "75.0"]
    assert lines[-1] == "3 layers, 4.000 ms; of these 1 reformat, 0.000 ms"
    assert main(["inspect", str(model_path), "--layers"]) == 2
    assert "only an engine has them" in capsys.readouterr().err
