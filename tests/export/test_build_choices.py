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
from recording_gpu import RecordingCuda
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.tensorrt.api import installed
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
        workspace=1.5, optimization_level=4, timing_cache=Path("t"), hardware_compatible="ampere",
        timing_iterations=8, tiling="moderate", device=1,
    )  # fmt: skip
    profile = ((1, 96, 128, 3), (2, 96, 128, 3), (4, 96, 128, 3))
    args = (Path("a b.onnx"), Path("a.engine"), settings, profile)
    line = trtexec_command(*args, "10.16.1.11")
    assert shlex.split(line) == [
        "trtexec", "--onnx=a b.onnx", "--saveEngine=a.engine", "--noTF32",
        "--profilingVerbosity=detailed", "--stronglyTyped",
        "--minShapes=frames:1x96x128x3", "--optShapes=frames:2x96x128x3",
        "--maxShapes=frames:4x96x128x3", "--memPoolSize=workspace:1536M",
        "--builderOptimizationLevel=4", "--timingCacheFile=t",
        "--hardwareCompatibilityLevel=ampere+", "--avgTiming=8", "--tilingOptimizationLevel=2",
        "--device=1",
    ]  # fmt: skip
    same = dataclasses.replace(settings, hardware_compatible="same")
    line = trtexec_command(args[0], args[1], same, profile, "11.4.0.106")
    assert "--hardwareCompatibilityLevel=sameComputeCapability" in shlex.split(line)
    assert "--stronglyTyped" not in trtexec_command(*args, "11.4.0.106")


def test_an_engine_for_the_same_compute_capability(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path
) -> None:
    """Without it another model of GPU may refuse the engine (NVIDIA/TensorRT issue 2900)."""
    fake: Any = tensorrt()
    settings = BuildSettings(hardware_compatible="same", nms="graph")
    report = build_engine(model_path, tmp_path / "a.engine", settings)
    assert fake.told["hardware_compatibility_level"] == "SAME_COMPUTE_CAPABILITY"
    assert not report.info.hardware_compatible and report.info.compute_capability == "8.9"
    del fake.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
    with pytest.raises(BadInput, match=r"takes no `hardware_compatible=same`\..* 10\.8"):
        build_engine(model_path, tmp_path / "a.engine", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tiling": "fast"}, r"TensorRT 10\.7.* takes no `tiling`"),
        ({"compute_capability": ("8.9",)}, "takes no `compute_capability`.*the GPU that"),
        ({"device": 2}, r"no GPU 2 that works\. Choose one of 0"),
    ],
)
def test_what_tensorrt_cannot_do(
    settings: Any, message: str, tensorrt: Callable[..., FakeBuilder], model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    fake: Any = tensorrt("10.7.0.23")
    del fake.TilingOptimizationLevel
    with pytest.raises(BadInput, match=message):
        build_engine(model_path, tmp_path / "a.engine", BuildSettings(**settings))


def test_another_gpu_builds(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It is current in the thread that builds, and given back."""
    cuda, second = RecordingCuda(), dataclasses.replace(GPU, index=1, name="the second")
    fake, opened = tensorrt(), list[int]()
    monkeypatch.setattr(build, "find_gpus", lambda: [GPU, second])

    def open_gpu(index: int) -> RecordingCuda:
        opened.append(index)
        return cuda

    monkeypatch.setattr(build, "open_gpu", open_gpu)
    builder = fake.Builder

    def on_the_gpu(logger: Any) -> Any:
        cuda.check()
        return builder(logger)

    monkeypatch.setattr(fake, "Builder", on_the_gpu)
    report = build_engine(model_path, tmp_path / "a.engine", BuildSettings(device=1))
    assert opened == [1] and report.info.gpu == "the second" and cuda.closed


@pytest.mark.skipif(not installed("tensorrt-rtx"), reason="TensorRT-RTX is not installed")
def test_tensorrt_rtx_builds_for_named_gpus(model_path: Path, tmp_path: Path) -> None:
    """A plan for one kind of GPU is another one than for all."""

    def run(*capabilities: str) -> bytes:
        output = tmp_path / "a.engine"
        settings = BuildSettings(runtime="tensorrt-rtx", compute_capability=capabilities)
        build_engine(model_path, output, settings)
        return output.read_bytes()

    plans = {run(), run("8.9"), run("12.0"), run("8.9", "12.0")}
    assert len(plans) == 4
    with pytest.raises(BadInput, match=r"for no `compute_capability` 9\.0: it knows .*8\.9"):
        run("9.0")
