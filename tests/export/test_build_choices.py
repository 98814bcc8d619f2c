"""What `retinart build` chooses by itself: the form of NMS and the runtime. On doubles."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from fake_builder import GPU, FakeBuilder
from retinart.engine.errors import BadInput, MissingDependency
from retinart.export import build
from retinart.export.build import build_engine
from retinart.export.settings import BuildSettings
from retinart.export.trtexec import trtexec_command


def test_the_choice_of_nms(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path
) -> None:
    def run(**settings: Any) -> Any:
        return build_engine(model_path, tmp_path / "a.engine", BuildSettings(**settings))

    def nodes(fake: FakeBuilder) -> set[str]:
        return {node.op_type for node in fake.told["model"].graph.node}

    fake = tensorrt()
    assert run().info.nms == run(nms="plugin").info.nms == "plugin"
    assert "RetinaNetNMS" in nodes(fake) and fake.told["network"] == 10
    assert run(nms="efficient").info.nms == "efficient"
    assert "EfficientNMS_TRT" in nodes(fake) and fake.told["network"] == 2
    assert run(nms="graph").info.nms == run(version_compatible=True).info.nms == "graph"
    assert fake.told["model"] == onnx.load(model_path)
    for form in ("plugin", "efficient"):
        with pytest.raises(BadInput, match="exclude each other"):
            run(version_compatible=True, nms=form)
    fake = tensorrt("10.7.0", aot=False)
    report = run()
    assert report.info.nms == "efficient"
    assert report.notes[0] == "NMS is the plugin EfficientNMS_TRT"
    assert report.notes[-1].startswith("trtexec builds it, with --nms graph: trtexec --onnx=")
    assert "registered" not in fake.told
    with pytest.raises(BadInput, match=r"10\.7\.0 takes no kernels into a plan, .* since 10\.9"):
        run(nms="plugin")
    tensorrt(aot=False, plugin=False)
    report = run()
    assert report.info.nms == "graph" and "has no plugin EfficientNMS" in report.notes[0]
    with pytest.raises(BadInput, match="has no plugin EfficientNMS_TRT"):
        run(nms="efficient")
    for old in ("8.6.1", "10.0.1"):
        tensorrt(old)
        with pytest.raises(BadInput, match=rf"{re.escape(old)} is too old"):
            run()


def test_a_gpu_that_tensorrt_rtx_does_not_know(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where TensorRT is not installed, auto does not build what cannot run here."""
    fake: Any = tensorrt("1.7.1.116")
    fake.ComputeCapability = SimpleNamespace(__members__=dict.fromkeys(("NONE", "SM89", "SM120")))
    monkeypatch.setattr(build, "installed", lambda runtime: runtime == "tensorrt-rtx")
    output = tmp_path / "a.engine"
    assert build_engine(model_path, output, BuildSettings()).info.runtime == "tensorrt-rtx"
    hopper = dataclasses.replace(GPU, name="NVIDIA H100", compute_capability="9.0")
    monkeypatch.setattr(build, "find_gpus", lambda: [hopper])
    with pytest.raises(MissingDependency, match=r"not run on NVIDIA H100: .* 8\.9, 12\.0, .* 9\.0"):
        build_engine(model_path, output, BuildSettings())
    build_engine(model_path, output, BuildSettings(runtime="tensorrt-rtx"))  # for another GPU


def test_the_command_of_trtexec() -> None:
    settings = BuildSettings(
        workspace=1.5, optimization_level=4, timing_cache=Path("t"), hardware_compatible=True
    )
    profile = ((1, 96, 128, 3), (2, 96, 128, 3), (4, 96, 128, 3))
    args = (Path("a b.onnx"), Path("a.engine"), settings, profile)
    line = trtexec_command(*args, "10.16.1.11")
    assert shlex.split(line) == [
        "trtexec", "--onnx=a b.onnx", "--saveEngine=a.engine", "--noTF32", "--stronglyTyped",
        "--minShapes=frames:1x96x128x3", "--optShapes=frames:2x96x128x3",
        "--maxShapes=frames:4x96x128x3", "--memPoolSize=workspace:1536M",
        "--builderOptimizationLevel=4", "--timingCacheFile=t",
        "--hardwareCompatibilityLevel=ampere+",
    ]  # fmt: skip
    assert "--stronglyTyped" not in trtexec_command(*args, "11.4.0.106")
