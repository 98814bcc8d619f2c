"""An exported file to an engine: `model.engine`, and `model.engine.json` beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinart.engine.common.files import atomic_path, new_folder, restored, sha256
from retinart.engine.cuda.devices import Gpu, find_gpus
from retinart.engine.errors import BadInput, MissingDependency
from retinart.engine.model.info import ModelInfo, Precision, read_info
from retinart.engine.tensorrt.api import TITLES, EngineRuntime, TensorRT, installed, load_tensorrt
from retinart.engine.tensorrt.engine_file import AMPERE, EngineInfo, engine_json, is_engine, numbers
from retinart.export.settings import BuildSettings
from retinart.export.tensorrt_build import PlanSettings, Show, build_plan, profile_for

_GIB = 1 << 30
_CONVERT: dict[Precision, str] = {
    "fp32": "Take the file that `retinart export` wrote",
    "fp16": "Make such a file with `retinart convert model.onnx`",
    "int8": "Make such a file with `retinart calibrate model.onnx --images DIR`",
    "int8+fp16": "Make such a file with `retinart convert model.int8.onnx`",
}


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """An engine that was written.

    Attributes:
        path: of the engine.
        info: its metadata.
        notes: what was decided, for people.
    """

    path: Path
    info: EngineInfo
    notes: tuple[str, ...]


def build_engine(
    model: Path,
    output: Path,
    settings: BuildSettings,
    *,
    show: Show = lambda fraction, phase: None,
) -> BuildReport:
    """Build an engine; both files appear when all went well, and neither when not.

    Args:
        model: an ONNX file of retinart.
        output: where to write, such as model.engine.
        settings: how to build.
        show: called with how far the build is, 0 to 1, and with what TensorRT is at.

    Raises:
        BadInput: the file, or a setting that the runtime lacks.
        MissingDependency: no runtime, or no GPU for TensorRT, which builds on the one it runs on.
        CheckFailed: TensorRT refused the graph.
    """
    if not is_engine(output):
        raise BadInput(f"the output {output} has no engine's suffix", fix="Name it model.engine")
    info = read_info(model)
    if settings.precision is not None and settings.precision != info.precision:
        raise BadInput(
            f"{model} is {info.precision}, not {settings.precision}",
            why="an engine has the precision that is written in its file",
            fix=_CONVERT[settings.precision],
        )
    gpus = find_gpus()
    runtime = choose_runtime(settings, gpus)
    trt = load_tensorrt(runtime)
    check_supported(trt, runtime, settings, gpus)
    nms, notes = choose_nms(trt, runtime, settings)
    data = _with_plugin(model, info) if nms == "plugin" else model.read_bytes()
    cache, cache_note = _read_cache(runtime, settings)
    plan_settings = PlanSettings(
        profile=profile_for(info, settings.batch),
        workspace=None if settings.workspace is None else int(settings.workspace * _GIB),
        optimization_level=settings.optimization_level,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        timing_cache=cache,
    )
    with contextlib.ExitStack() as stack:
        # first of all, so that what cannot be written is said before the work; the engine gets its
        # name last, and if it does not, an older one has its own metadata again
        stack.enter_context(new_folder(output.parent))
        stack.enter_context(restored(engine_json(output)))
        temporary = stack.enter_context(atomic_path(output))
        beside = stack.enter_context(atomic_path(engine_json(output)))
        plan = build_plan(trt, runtime, data, plan_settings, name=model.name, show=show)
        gpu = gpus[0] if runtime == "tensorrt" else None  # TensorRT-RTX builds for any from Ampere
        built = EngineInfo(
            model=info,
            runtime=runtime,
            version=trt.__version__,
            gpu=gpu.name if gpu else None,
            compute_capability=gpu.compute_capability if gpu else None,
            profile=plan_settings.profile,
            nms=nms,
            version_compatible=settings.version_compatible,
            hardware_compatible=settings.hardware_compatible,
            build_seconds=round(plan.seconds, 3),
            plan_sha256=hashlib.sha256(plan.data).hexdigest(),
            onnx_sha256=sha256(model),
            rebuild=rebuild_command(model, output, settings),
        )
        temporary.write_bytes(plan.data)
        beside.write_text(built.to_json(), encoding="utf-8")
    if plan.timing_cache is not None and settings.timing_cache is not None:
        cache_note = write_cache(settings.timing_cache, plan.timing_cache, built, settings)
    return BuildReport(path=output, info=built, notes=tuple(n for n in (*notes, cache_note) if n))


def choose_runtime(settings: BuildSettings, gpus: list[Gpu]) -> EngineRuntime:
    """The runtime to build for.

    Raises:
        MissingDependency: none is installed, or there is no GPU for TensorRT.
    """
    runtime = settings.runtime
    if runtime == "auto":
        runtime = "tensorrt" if gpus and installed("tensorrt") else "tensorrt-rtx"
    if not installed(runtime):
        raise MissingDependency.package(
            runtime.replace("-", "_"), runtime, f"Building for {TITLES[runtime]}"
        )
    if runtime == "tensorrt" and not gpus:
        raise MissingDependency(
            "TensorRT builds an engine on the kind of GPU that will run it, and there is none here",
            fix="Build there; or set `runtime` to tensorrt-rtx, to check here that the file builds",
        )
    return runtime


def check_supported(
    trt: TensorRT, runtime: EngineRuntime, settings: BuildSettings, gpus: list[Gpu]
) -> None:
    """Say what this runtime, version or GPU lacks before the build.

    Raises:
        BadInput: something that the settings want.
    """
    title = f"{TITLES[runtime]} {trt.__version__}"
    if runtime == "tensorrt":
        if int(trt.__version__.split(".")[0]) < 10:
            raise BadInput(
                f"{title} is too old",
                why="strongly typed networks of TensorRT 10 and newer are what is built",
                fix='Install a newer one with `pip install "retinart[tensorrt]"`',
            )
        if settings.hardware_compatible and numbers(gpus[0].compute_capability) < AMPERE:
            raise BadInput(
                f"{gpus[0].name} builds no engines that are `hardware_compatible`",
                why=f"they are of Ampere and newer GPUs, and it has {gpus[0].compute_capability}",
                fix="Leave it out, or build on a newer GPU",
            )
        if settings.version_compatible and settings.nms == "plugin":
            raise BadInput(
                "`version_compatible` and the plugin for `nms` exclude each other",
                why="a version-compatible engine cannot count on the plugins of another version",
                fix="Set `nms` to native",
            )
        return
    for wanted, flag, why in (
        (settings.version_compatible, "`version_compatible`", "it has no lean runtime"),
        (
            settings.hardware_compatible,
            "`hardware_compatible`",
            "its engines run on every GPU from Ampere on as they are",
        ),
        (settings.nms == "plugin", "plugin for `nms`", "it has no EfficientNMS_TRT"),
    ):
        if wanted:
            raise BadInput(f"{title} takes no {flag}", why=why, fix="Leave it out")


def choose_nms(
    trt: TensorRT, runtime: EngineRuntime, settings: BuildSettings
) -> tuple[Literal["native", "plugin"], list[str]]:
    """The form of NMS, and what to say of it.

    Raises:
        BadInput: the plugin is wanted, and TensorRT has it no more.
    """
    if settings.nms == "native":
        return "native", []
    if runtime == "tensorrt-rtx":
        return "native", ["NMS is the file's own: TensorRT-RTX has no EfficientNMS_TRT"]
    if settings.version_compatible:
        return "native", ["NMS is the file's own: a version-compatible engine takes no plugin"]
    from retinart.export.efficient_nms import PLUGIN, PLUGIN_VERSION

    trt.init_libnvinfer_plugins(None, "")
    registry = trt.get_plugin_registry()
    if registry is not None and registry.get_creator(PLUGIN, PLUGIN_VERSION, "") is not None:
        return "plugin", [f"NMS is the plugin {PLUGIN}"]
    if settings.nms == "plugin":
        raise BadInput(
            f"TensorRT {trt.__version__} has no plugin {PLUGIN}", fix="Set `nms` to native"
        )
    return "native", [f"NMS is the file's own: this TensorRT has no {PLUGIN}"]


def rebuild_command(model: Path, output: Path, settings: BuildSettings) -> str:
    """The command line that builds with these settings."""
    words = ["retinart", "build", str(model), "-o", str(output), "--runtime", settings.runtime]
    words += ["--batch", *map(str, settings.batch), "--nms", settings.nms]
    for flag, value in (
        ("--precision", settings.precision),
        ("--timing-cache", settings.timing_cache),
        ("--workspace", settings.workspace),
        ("--optimization-level", settings.optimization_level),
    ):
        words += [] if value is None else [flag, str(value)]
    words += ["--version-compatible"] if settings.version_compatible else []
    words += ["--hardware-compatible"] if settings.hardware_compatible else []
    return shlex.join(words)


def write_cache(path: Path, data: bytes, built: EngineInfo, settings: BuildSettings) -> str:
    """Keep a timing cache, with the time of each first build with it; says what it saved.

    The cache stays TensorRT's own file; the times stand in `FILE.json` beside it.
    """
    beside = path.with_name(f"{path.name}.json")
    how = [
        built.onnx_sha256, built.version, built.gpu, built.profile, built.nms,
        built.version_compatible, built.hardware_compatible,
        settings.workspace, settings.optimization_level,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()
    first: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):  # it only serves the saying
        first = json.loads(beside.read_text(encoding="utf-8"))
    known = key in first
    before = float(first.setdefault(key, built.build_seconds))
    for target, content in ((path, data), (beside, json.dumps(first, indent=1).encode())):
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    if not known:
        return f"the timing cache {path} is written: the next build of this file will be quicker"
    saved = before - built.build_seconds
    return (
        f"the timing cache {path} saved {saved:.1f} s: {built.build_seconds:.1f} s, and "
        f"{before:.1f} s for the first build"
    )


def _read_cache(runtime: EngineRuntime, settings: BuildSettings) -> tuple[bytes | None, str]:
    path = settings.timing_cache
    if path is None:
        return None, ""
    if runtime == "tensorrt-rtx":
        return None, f"{path} saved 0 s and is not written: TensorRT-RTX has no timings to keep"
    try:
        return path.read_bytes(), ""
    except FileNotFoundError:
        return b"", ""


def _with_plugin(model: Path, info: ModelInfo) -> bytes:
    import onnx

    from retinart.export.efficient_nms import with_plugin

    return bytes(with_plugin(onnx.load(model), info).SerializeToString())
