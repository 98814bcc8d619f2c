"""`retinart build`: real engines by TensorRT-RTX on the CPU, and TensorRT's part by a double.

The double records what a builder is told; it builds nothing, and does not test TensorRT.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from fake_builder import GPU, FakeBuilder
from retinart.calib.convert import convert
from retinart.calib.settings import ConvertSettings
from retinart.engine.common.files import sha256
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
from retinart.engine.model.info import read_info
from retinart.engine.tensorrt.api import EngineRuntime, installed
from retinart.engine.tensorrt.engine_file import check_plan, read_engine_info
from retinart.export import build
from retinart.export.build import build_engine
from retinart.export.settings import BuildSettings
from retinart.export.tensorrt_build import Phases, PlanSettings, build_plan, profile_for
from support import files_below, save_changed, write_images

Command = Callable[..., CompletedProcess[str]]

needs_rtx = pytest.mark.skipif(
    not installed("tensorrt-rtx"), reason="TensorRT-RTX is not installed"
)


@needs_rtx
@pytest.mark.parametrize(("precision", "batch"), [("fp16", (1, 1, 1)), ("int8", (1, 2, 4))])
def test_engines_build(
    precision: Any,
    batch: tuple[int, int, int],
    model_path: Path,
    int8_path: Path,
    tmp_path: Path,
) -> None:
    """tests/test_golden.py builds one of full size, and `test_the_command` one in FP32."""
    model, output = model_path, tmp_path / "new" / "model.engine"
    if precision == "fp16":
        model = convert(model_path, tmp_path / "fp16.onnx", ConvertSettings()).path
    if precision == "int8":
        model = int8_path
    seen: list[float] = []
    settings = BuildSettings(
        runtime="tensorrt-rtx", batch=batch, precision=precision, nms="graph", workspace=1
    )
    report = build_engine(model, output, settings, show=lambda f, phase: seen.append(f))
    assert files_below(output.parent) == ["model.engine", "model.engine.json"]
    info = read_engine_info(output)
    assert info == report.info and info.model == read_info(model)
    assert check_plan(output, info) == output.read_bytes() and len(output.read_bytes()) > 1_000_000
    assert info.onnx_sha256 == sha256(model) and info.profile[2] == (batch[2], 96, 128, 3)
    assert (info.runtime, info.nms, info.gpu) == ("tensorrt-rtx", "graph", None)
    assert seen == sorted(seen) and seen[0] > 0 and seen[-1] <= 1 and len(set(seen)) > 10


@needs_rtx
def test_the_command(retinart: Command, model_path: Path, tmp_path: Path) -> None:
    output, cache = tmp_path / "a.engine", tmp_path / "cache"
    ran = retinart("build", model_path, "-o", output, "--batch", 1, 1, 2, "--timing-cache", cache)
    assert (ran.returncode, ran.stdout.strip()) == (0, str(output))
    assert "TensorRT-RTX has no plugins" in ran.stderr and "saved 0 s" in ran.stderr
    assert files_below(tmp_path) == ["a.engine", "a.engine.json"]
    ran = retinart("inspect", output)
    assert "engine of" in ran.stdout and "1x96x128 to 1x96x128 to 2x96x128" in ran.stdout
    ran = retinart("inspect", output, "--json")
    assert json.loads(ran.stdout)["engine"]["runtime"] == "tensorrt-rtx"
    if not find_gpus():
        ran = retinart("detect", output, write_images(tmp_path / "images", "0.png"))
        assert ran.returncode == 3 and "needs an NVIDIA GPU" in ran.stderr


# Ctrl-C at the first step; a shell starts background jobs that ignore it, which this undoes.
CONTROL_C = """
import os, signal, sys, time
from retinart import cli
from retinart.engine.common.progress import Progress

def update(self, *arguments):
    if not shown:
        os.kill(os.getpid(), signal.SIGINT)
    shown.append(arguments)
    time.sleep(0.01)  # steps come by the hundred in a blink, and the main thread has to wake up

shown, Progress.update = [], update
signal.signal(signal.SIGINT, signal.default_int_handler)
code = cli.main(sys.argv[1:])
print(code, len(shown))
"""


@needs_rtx
def test_control_c_stops_it_and_leaves_nothing(model_path: Path, tmp_path: Path) -> None:
    """In a process of its own, whose end is seen, and which has no other end but this."""
    command: list[str | Path] = [sys.executable, "-c", CONTROL_C, "build", model_path]
    ran = subprocess.run(
        [*command, "-o", tmp_path / "new" / "a.engine"], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    code, shown = map(int, ran.stdout.split())
    assert code == 130 and 0 < shown < 500  # of more than 900 steps
    assert files_below(tmp_path) == [] and not (tmp_path / "new").exists()


@needs_rtx
def test_what_the_parser_refuses(model_path: Path, tmp_path: Path) -> None:
    model = onnx.load(model_path)
    (weight,) = (i for i in model.graph.initializer if i.name == "fpn.p6.weight")
    weight.dims[2], weight.dims[0] = weight.dims[0], weight.dims[2]
    path = tmp_path / "bad.onnx"
    save_changed(model, path)
    message = r"cannot parse bad\.onnx.*node fpn\.p6 \(Conv\): .*retinart export"
    with pytest.raises(CheckFailed, match=message):
        build_engine(path, tmp_path / "bad.engine", BuildSettings())
    assert files_below(tmp_path) == ["bad.onnx"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": (2, 1, 4)}, "`batch` is 2 1 4"),
        ({"batch": (0, 1, 1)}, "`batch` is 0 1 1"),
        ({"workspace": 0}, "`workspace` is 0"),
        ({"optimization_level": 6}, "Give 0 to 5"),
        ({"precision": "int8"}, "is fp32, not int8.*retinart calibrate"),
        ({"version_compatible": True}, "TensorRT-RTX .* takes no `version_compatible`"),
        ({"hardware_compatible": "ampere"}, "takes no `hardware_compatible`.*as they are"),
        ({"nms": "plugin"}, "takes no plugin for `nms`"),
    ],
)
@needs_rtx
def test_bad_settings(
    settings: dict[str, Any], message: str, model_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        build_engine(
            model_path,
            tmp_path / "a.engine",
            BuildSettings(**({"runtime": "tensorrt-rtx"} | settings)),
        )
    assert files_below(tmp_path) == []


def test_what_is_missing(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str = "a.engine", **settings: Any) -> None:
        build_engine(model_path, tmp_path / name, BuildSettings(**settings))

    with pytest.raises(BadInput, match="does not end in"):
        run("a.onnx")
    monkeypatch.setattr(build, "find_gpus", list)
    monkeypatch.setattr(build, "installed", lambda runtime: runtime == "tensorrt")
    with pytest.raises(MissingDependency, match="kind of GPU that will run the engine"):
        run(runtime="tensorrt")
    with pytest.raises(MissingDependency, match=r"pip install .*tensorrt-rtx"):
        run(runtime="tensorrt-rtx")
    with pytest.raises(MissingDependency, match=r"\.\[tensorrt-rtx\].* or .*\.\[tensorrt\]"):
        run()


@pytest.mark.parametrize(("version", "flags"), [("10.16.1.11", 2 + 8), ("11.4.0.106", 8)])
def test_what_tensorrt_is_told(
    version: str, flags: int, tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path
) -> None:
    fake = tensorrt(version)
    settings = BuildSettings(
        batch=(1, 4, 8), workspace=1.5, optimization_level=4, hardware_compatible="ampere",
        timing_iterations=8, tiling="full",
    )  # fmt: skip
    report = build_engine(model_path, tmp_path / "a.engine", settings)
    # strongly typed: 11 knows nothing else; and the plan takes the plugin's kernel in
    assert fake.told["network"] == flags
    assert fake.told["flags"] == ["no TF32"] and fake.told["WORKSPACE"] == 3 << 29
    assert fake.told["builder_optimization_level"] == 4
    assert fake.told["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert fake.told["avg_timing_iterations"] == 8
    assert fake.told["tiling_optimization_level"] == "FULL"
    shapes = [(n, 96, 128, 3) for n in (1, 4, 8)]
    assert fake.told["profile"] == ("frames", *shapes)
    assert [n.op_type for n in fake.told["model"].graph.node].count("RetinaNetNMS") == 1
    assert fake.told["registered"] == 1
    info = report.info
    assert (info.nms, info.gpu, info.compute_capability) == ("plugin", GPU.name, "8.9")
    assert "NMS is retinart's plugin RetinaNetNMS" in report.notes
    assert "--workspace 1.5" in info.rebuild and "--batch 1 4 8" in info.rebuild
    assert info.rebuild.endswith(
        " --timing-iterations 8 --tiling full --hardware-compatible ampere"
    )


def test_what_an_old_gpu_or_driver_lacks(
    tensorrt: Callable[..., FakeBuilder], model_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fake, output = tensorrt(), tmp_path / "a.engine"

    def no_builder(logger: Any) -> Any:
        logger.log(1, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(fake, "Builder", no_builder)
    with pytest.raises(RetinartError, match=r"TensorRT does not start here.*error: 35.*driver"):
        build_engine(model_path, output, BuildSettings())
    turing = dataclasses.replace(GPU, compute_capability="7.5")
    monkeypatch.setattr(build, "find_gpus", lambda: [turing])
    with pytest.raises(BadInput, match=r"no engines that are `hardware_compatible`.* it has 7\.5"):
        build_engine(model_path, output, BuildSettings(hardware_compatible="ampere"))
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("broken", ["a.engine", "a.engine.json"])
def test_there_is_never_half_a_pair(
    broken: str,
    tensorrt: Callable[..., FakeBuilder],
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan exists, and one of the two files does not get its name."""
    output, real = tmp_path / "new" / "a.engine", Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == broken:
            raise KeyboardInterrupt
        return real(self, target)

    def build(workspace: float) -> None:
        build_engine(model_path, output, BuildSettings(workspace=workspace))

    tensorrt()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            build(1)
        assert list(tmp_path.iterdir()) == []
    build(2)
    before = {path: path.read_bytes() for path in output.parent.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            build(3)
    assert {path: path.read_bytes() for path in output.parent.iterdir()} == before
    assert check_plan(output, read_engine_info(output)) and len(before) == 2


def test_the_timing_cache(
    tensorrt: Callable[..., FakeBuilder],
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake, cache = tensorrt(), tmp_path / "cache"
    settings = BuildSettings(timing_cache=cache)
    clock = iter([0.0, 100.0, 0.0, 30.0, 0.0, 10.0, 0.0, 1.0])
    stopwatch = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr("retinart.export.tensorrt_build.time", stopwatch)
    first = build_engine(model_path, tmp_path / "a.engine", settings)
    assert "next build of this file will be quicker" in first.notes[-1]
    assert (fake.told["cache"], cache.read_bytes()) == (b"", b"timings")
    second = build_engine(model_path, tmp_path / "a.engine", settings)
    assert "saved 70.0 s: 30.0 s, and 100.0 s for the first build" in second.notes[-1]
    assert fake.told["cache"] == b"timings"
    less = dataclasses.replace(settings, optimization_level=0)  # no build to compare with
    assert "is written" in build_engine(model_path, tmp_path / "a.engine", less).notes[-1]
    fake.cache_fits = False
    damaged = f"{re.escape(str(cache))} .*: it is damaged, or was made on another GPU or by"
    with pytest.raises(
        BadInput,
        match=damaged,
    ):
        build_engine(model_path, tmp_path / "a.engine", settings)
    fake.cache_fits, fake.cache_is_made = True, False
    with pytest.raises(
        BadInput,
        match=damaged,
    ):
        build_engine(model_path, tmp_path / "a.engine", settings)
    assert cache.read_bytes() == b"timings"


@pytest.mark.parametrize(
    ("runtime", "flags"),
    [("tensorrt-rtx", ["no TF32", "REQUIRE_USER_ALLOCATION"]), ("tensorrt", ["no TF32"])],
)
def test_rtx_may_not_allocate_at_run_time(
    runtime: EngineRuntime, flags: list[str], model_path: Path
) -> None:
    """What allocates then cannot be captured as a CUDA graph."""
    fake: Any = FakeBuilder("1.7.1.116")
    fake.BuilderFlag.REQUIRE_USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"
    settings = PlanSettings(profile=profile_for(read_info(model_path), (1, 1, 1)))
    build_plan(fake, runtime, model_path.read_bytes(), settings)
    assert fake.told["flags"] == flags


def test_profiles(model_path: Path, dynamic_model_path: Path) -> None:
    fixed = profile_for(read_info(model_path), (1, 2, 3))
    assert fixed == ((1, 96, 128, 3), (2, 96, 128, 3), (3, 96, 128, 3))
    dynamic = profile_for(read_info(dynamic_model_path), (1, 1, 1))
    assert dynamic == ((1, 32, 32, 3), (1, 96, 128, 3), (1, 160, 160, 3))


def test_phases() -> None:
    phases, seen = Phases(), []
    phases.start("all", None, 2)
    for _ in range(2):
        phases.start("part", "all", 2)
        for step in range(2):
            phases.done("part", step + 1)
            seen.append(phases.fraction)
        phases.finish("part")
        phases.done("all", 1)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    phases.start("unknown", "gone", 0)
    phases.done("never begun", 3)
    assert phases.fraction == 1.0
