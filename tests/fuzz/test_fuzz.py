"""A short run of the fuzzer with fixed seeds, and what longer runs found."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import strategies, uses
from retinart.benchmarks.latency.regression import read_baseline
from retinart.calib.calibrate import calibrate
from retinart.calib.convert import convert
from retinart.calib.settings import CalibrationSettings, ConvertSettings
from retinart.cli.export import read_names
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, RetinartError
from retinart.export.array_pickle import load_arrays
from retinart.export.checkpoint import load_any
from support import ROOT, make_picture, save_changed

_INPUTS = 25  # `.ci/run` fuzzes for two minutes


def test_a_short_run(tmp_path: Path) -> None:
    """In a process of its own, which forks a child for each input and so must have no threads."""
    command = [sys.executable, "-m", "fuzz", "--inputs", str(_INPUTS), "--keep", str(tmp_path)]
    ran = subprocess.run(
        command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "| all " in ran.stdout and list(tmp_path.iterdir()) == []


in_process = settings(
    max_examples=60, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def _read(data: bytes, path: Path, read: Callable[[Path], object]) -> None:
    path.write_bytes(data)
    with contextlib.suppress(RetinartError):
        read(path)


@in_process
@given(strategies.documents(uses.baseline()))
def test_drawn_benchmarks(tmp_path: Path, data: bytes) -> None:
    _read(data, tmp_path / "benchmark.json", lambda path: read_baseline(path, [uses.ROW]))


@in_process
@given(strategies.names())
def test_drawn_class_names(tmp_path: Path, data: bytes) -> None:
    _read(data, tmp_path / "names.txt", read_names)


@in_process
@given(strategies.pickles())
def test_drawn_pickles(tmp_path: Path, data: bytes) -> None:
    _read(data, tmp_path / "a.pkl", load_any)
    assert load_arrays(uses.arrays())["model"]["layer0"].shape == (2, 3)


def _wrong_type(model: Any) -> None:
    node = next(n for n in model.graph.node if any(a.name == "keepdims" for a in n.attribute))
    next(a for a in node.attribute if a.name == "keepdims").type = onnx.AttributeProto.FLOAT


def _too_many(model: Any) -> None:
    name = next(n for n in model.graph.node if n.op_type == "TopK").input[1]
    (constant,) = (c for c in model.graph.initializer if c.name == name)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.array([1 << 20]), name))


@pytest.mark.parametrize("change", [_wrong_type, _too_many])
def test_errors_of_libraries_name_the_file(
    change: Callable[[Any], None], model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    """onnx's checker and ONNX Runtime see the graph when the new file is made of it."""
    model, path = onnx.load(model_path), tmp_path / "changed.onnx"
    change(model)
    save_changed(model, path)
    images = CalibrationSettings(images=str(small_scenes), num=1)
    with pytest.raises(BadInput, match=r"changed\.onnx"):
        calibrate(path, tmp_path / "q.onnx", images)
    with pytest.raises(BadInput, match=r"changed\.onnx"):
        convert(path, tmp_path / "h.onnx", ConvertSettings())


def test_another_batch_than_the_graph_s(dynamic_model_path: Path, tmp_path: Path) -> None:
    model, path = onnx.load(dynamic_model_path), tmp_path / "changed.onnx"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64
    save_changed(model, path)
    with pytest.raises(BadInput, match=r"changed\.onnx"), Detector(path) as detector:
        detector(make_picture(1))
