"""OpenVINO's Core lives as long as the process."""

from __future__ import annotations

from pathlib import Path

from retinart.engine.runtime.openvino_api import openvino_core
from support import run_python

_SIGNAL_AFTER_MODELS = """
import signal, sys
import onnxruntime  # otherwise the freed stack happens to stay mapped
from retinart.cli import main

model, images, output = sys.argv[1:]
assert main(["calibrate", model, "--images", images, "--num", "2", "-o", output]) == 0
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_after_models_were_unloaded(
    model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    """On CPUs with AMX it was a segmentation fault: the library freed the stack of the handlers."""
    words = map(str, (model_path, small_scenes, tmp_path / "a.int8.onnx"))
    done = run_python("-c", _SIGNAL_AFTER_MODELS, *words)
    assert done.returncode == 0 and done.stdout.endswith("handled\n"), done.stderr


def test_there_is_one_core() -> None:
    assert openvino_core() is openvino_core()
    assert openvino_core(snippets=False) is not openvino_core()
    assert openvino_core(snippets=False) is openvino_core(snippets=False)


_CONVERT = """
import sys
from retinart.engine.runtime.openvino_api import load_openvino
openvino = load_openvino()
assert "openvino.tools.ovc" not in sys.modules
assert openvino.convert_model(sys.argv[1]).inputs
assert "openvino_telemetry" not in sys.modules
"""


def test_the_converter_is_imported_when_it_is_called(model_path: Path) -> None:
    """A program that also uses OpenVINO itself finds all of it."""
    done = run_python("-c", _CONVERT, str(model_path))
    assert done.returncode == 0, done.stderr
