"""From an exported file to an engine, `model.engine`, and its metadata, `model.engine.json`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from retinart.engine.common.bounded_reading import MIB, read_bytes, read_json
from retinart.engine.common.files import atomic_pair, json_text, sha256
from retinart.engine.common.folders import new_folder
from retinart.engine.cuda.devices import Gpu, find_gpus
from retinart.engine.cuda.open_gpu import open_gpu
from retinart.engine.errors import BadInput, MissingDependency, pip_command
from retinart.engine.model.info import ModelInfo, Precision, read_model
from retinart.engine.tensorrt.api import (
    TITLES,
    EngineRuntime,
    TensorRT,
    installed,
    known_capabilities,
    load_tensorrt,
)
from retinart.engine.tensorrt.engine_file import (
    AMPERE,
    EngineInfo,
    NmsForm,
    engine_json,
    is_engine,
    numbers,
)
from retinart.export.settings import BuildSettings
from retinart.export.tensorrt_build import PlanSettings, Show, build_plan, profile_for
from retinart.export.trtexec import trtexec_command

_GIB = 1 << 30
_NEWER = "Leave it out, or install TensorRT 10.8 or newer"
_GPU_DECIDES = "Leave it out: the GPU that TensorRT builds on decides. TensorRT-RTX takes it"
_MOST_CACHE = 1024 * MIB
_CONVERT: dict[Precision, str] = {
    "fp32": "Give the file that `retinart export` wrote",
    "fp16": "Make such a file with `retinart convert model.onnx`",
    "int8": "Make such a file with `retinart calibrate model.onnx --images DIR`",
    "int8+fp16": "Make such a file with `retinart convert model.int8.onnx`",
    "fp8": "Make such a file with `retinart calibrate model.onnx --images DIR --precision fp8`",
    "fp8+fp16": "Make such a file with `retinart convert model.fp8.onnx`",
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
    """Build an engine. Both files appear when everything has gone well, and neither otherwise.

    Args:
        model: an ONNX file of retinart.
        output: where to write, such as model.engine.
        settings: how to build.
        show: called with the fraction that is done and the name of TensorRT's present phase.

    Raises:
        BadInput: the file cannot be used, or the runtime lacks what a setting asks for.
        MissingDependency: no runtime is installed, or TensorRT has no GPU to build on.
        CheckFailed: TensorRT refused the graph.
    """
    if not is_engine(output):
        raise BadInput(
            f"the output {output} does not end in .engine, .plan or .trt",
            fix="Name it model.engine",
        )
    info, data = read_model(model)
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
    data = _with_form(trt, nms, data, info)
    cache, cache_note = _read_cache(runtime, settings)
    plan_settings = PlanSettings(
        profile=profile_for(info, settings.batch),
        workspace=None if settings.workspace is None else int(settings.workspace * _GIB),
        optimization_level=settings.optimization_level,
        version_compatible=settings.version_compatible,
        hardware_compatible=settings.hardware_compatible,
        timing_iterations=settings.timing_iterations,
        tiling=settings.tiling,
        compute_capabilities=tuple(f"SM{c.replace('.', '')}" for c in settings.compute_capability),
        timing_cache=cache,
        cache_name=str(settings.timing_cache),
        aot_plugins=nms == "plugin",
    )
    with contextlib.ExitStack() as stack:
        # open the outputs first, so that a bad path fails before the work
        stack.enter_context(new_folder(output.parent))
        temporary, beside = stack.enter_context(atomic_pair(output, engine_json(output)))
        on: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        if settings.device:
            on = stack.enter_context(contextlib.closing(open_gpu(settings.device))).current
        plan = build_plan(trt, runtime, data, plan_settings, name=model.name, show=show, on=on)
        # TensorRT-RTX builds for many GPUs
        gpu = _chosen(gpus, settings) if runtime == "tensorrt" else None
        built = EngineInfo(
            model=info,
            runtime=runtime,
            version=trt.__version__,
            gpu=gpu.name if gpu else None,
            compute_capability=gpu.compute_capability if gpu else None,
            profile=plan_settings.profile,
            nms=nms,
            version_compatible=settings.version_compatible,
            hardware_compatible=settings.hardware_compatible == "ampere",
            build_seconds=round(plan.seconds, 3),
            plan_sha256=hashlib.sha256(plan.data).hexdigest(),
            onnx_sha256=sha256(model),
            rebuild=rebuild_command(model, output, settings),
        )
        temporary.write_bytes(plan.data)
        beside.write_text(built.to_json(), encoding="utf-8")
    if plan.timing_cache is not None and settings.timing_cache is not None:
        cache_note = write_cache(settings.timing_cache, plan.timing_cache, built, settings)
    if runtime == "tensorrt":
        profile = plan_settings.profile
        equal = trtexec_command(model, output, settings, profile, trt.__version__)
        notes.append(f"trtexec builds it, with --nms graph: {equal}")
    return BuildReport(path=output, info=built, notes=tuple(n for n in (*notes, cache_note) if n))


def choose_runtime(settings: BuildSettings, gpus: list[Gpu]) -> EngineRuntime:
    """The runtime to build for.

    Raises:
        MissingDependency: no runtime is installed, or TensorRT has no GPU to build on.
    """
    runtime = settings.runtime
    if runtime == "auto":
        runtime = "tensorrt" if gpus and installed("tensorrt") else "tensorrt-rtx"
        if not installed(runtime):
            raise MissingDependency(
                "building an engine here needs TensorRT-RTX, or TensorRT and a GPU",
                fix=f"Install one with `{pip_command('tensorrt-rtx')}` or "
                f"`{pip_command('tensorrt')}` in retinart's folder. TensorRT builds on the kind of "
                "GPU that will run the engine",
            )
    if not installed(runtime):
        raise MissingDependency.package(
            runtime.replace("-", "_"), runtime, f"Building for {TITLES[runtime]}"
        )
    if runtime == "tensorrt" and not gpus:
        raise MissingDependency(
            "TensorRT builds on the kind of GPU that will run the engine; this machine has none",
            fix="Build there; or set `runtime` to tensorrt-rtx, to check here that the file builds",
        )
    return runtime


def check_supported(
    trt: TensorRT, runtime: EngineRuntime, settings: BuildSettings, gpus: list[Gpu]
) -> None:
    """Refuse settings that this runtime, version or GPU cannot build with.

    Raises:
        BadInput: naming the setting.
        MissingDependency: this machine's GPU needs TensorRT.
    """
    title = f"{TITLES[runtime]} {trt.__version__}"
    if runtime == "tensorrt":
        if numbers(trt.__version__) < (10, 1):
            raise BadInput(
                f"{title} is too old",
                why="it lacks what retinart asks of engines, which TensorRT has since version 10.1",
                fix=f"Install a newer one with `{pip_command('tensorrt')}` in retinart's folder",
            )
        gpu = _chosen(gpus, settings)
        _check_version(trt, title, settings)
        ampere = settings.hardware_compatible == "ampere"
        if ampere and numbers(gpu.compute_capability) < AMPERE:
            raise BadInput(
                f"{gpu.name} builds no engines that are `hardware_compatible`",
                why="that takes a GPU of compute capability 8.0 or higher, and it has "
                f"{gpu.compute_capability}",
                fix="Leave it out, or build on a newer GPU",
            )
        if settings.version_compatible and settings.nms in ("plugin", "efficient"):
            raise BadInput(
                "`version_compatible` and a plugin for `nms` exclude each other",
                why="another version may lack the plugin",
                fix="Set `nms` to graph",
            )
        return
    known = known_capabilities(trt)
    if settings.runtime == "auto" and gpus and gpus[0].compute_capability not in known:
        raise MissingDependency(
            f"an engine of {title} does not run on {gpus[0].name}",
            why=f"it runs on compute capability {', '.join(known)}, and the GPU has "
            f"{gpus[0].compute_capability}",
            fix=f"Install TensorRT with `{pip_command('tensorrt')}` in retinart's folder; or set "
            "`runtime` to tensorrt-rtx, to build for another GPU",
        )
    for wanted, setting, why in (
        (settings.version_compatible, "`version_compatible`", "it has no lean runtime"),
        (
            settings.hardware_compatible != "none",
            "`hardware_compatible`",
            "its engines run on every GPU from Ampere on as they are",
        ),
        (settings.nms in ("plugin", "efficient"), "plugin for `nms`", "it has no plugins"),
        (settings.device, "`device`", "it builds without a GPU"),
        (settings.timing_iterations, "`timing_iterations`", "it times no kernels"),
    ):
        if wanted:
            raise BadInput(f"{title} takes no {setting}", why=why, fix="Leave it out")
    if unknown := [c for c in settings.compute_capability if c not in known]:
        raise BadInput(
            f"{title} builds for no `compute_capability` {unknown[0]}",
            why=f"it knows {', '.join(known)}",
            fix="Give one of these, or build with TensorRT on the GPU itself",
        )


def _check_version(trt: TensorRT, title: str, settings: BuildSettings) -> None:
    """Refuse what this version of TensorRT does not have."""
    levels = trt.HardwareCompatibilityLevel
    for wanted, there, setting, fix in (
        (settings.tiling, hasattr(trt, "TilingOptimizationLevel"), "tiling", _NEWER),
        (
            settings.hardware_compatible == "same",
            hasattr(levels, "SAME_COMPUTE_CAPABILITY"),
            "hardware_compatible=same",
            _NEWER,
        ),
        (settings.compute_capability, False, "compute_capability", _GPU_DECIDES),
    ):
        if wanted and not there:
            raise BadInput(f"{title} takes no `{setting}`", fix=fix)


def _chosen(gpus: list[Gpu], settings: BuildSettings) -> Gpu:
    """The GPU to build on.

    Raises:
        BadInput: there is none of this number.
    """
    for gpu in gpus:
        if gpu.index == settings.device:
            return gpu
    raise BadInput(
        f"there is no GPU {settings.device} that works",
        fix=f"Choose one of {', '.join(str(gpu.index) for gpu in gpus)}",
    )


def choose_nms(
    trt: TensorRT, runtime: EngineRuntime, settings: BuildSettings
) -> tuple[NmsForm, list[str]]:
    """The form of NMS, and a note on why.

    Raises:
        BadInput: the settings ask for a plugin that this TensorRT does not have.
    """
    from retinart.export import efficient_nms, nms_plugin

    if settings.nms == "graph":
        return "graph", []
    if runtime == "tensorrt-rtx":
        return "graph", ["NMS is the file's own: TensorRT-RTX has no plugins"]
    if settings.version_compatible:
        return "graph", ["NMS is the file's own: a version-compatible engine takes no plugin"]
    wanted = ("plugin", "efficient") if settings.nms == "auto" else (settings.nms,)
    if "plugin" in wanted and nms_plugin.has_aot_plugins(trt):
        return "plugin", [f"NMS is retinart's plugin {nms_plugin.PLUGIN}"]
    if "efficient" in wanted and efficient_nms.has_plugin(trt):
        return "efficient", [f"NMS is the plugin {efficient_nms.PLUGIN}"]
    lacks = {
        "plugin": "takes no kernels into a plan, which TensorRT does since 10.9",
        "efficient": f"has no plugin {efficient_nms.PLUGIN}",
    }
    why = " and ".join(lacks[form] for form in wanted)
    if settings.nms != "auto":
        raise BadInput(f"TensorRT {trt.__version__} {why}", fix="Set `nms` to auto")
    return "graph", [f"NMS is the file's own: TensorRT {trt.__version__} {why}"]


def rebuild_command(model: Path, output: Path, settings: BuildSettings) -> str:
    """The command line that builds with these settings."""
    words = ["retinart", "build", str(model), "-o", str(output), "--runtime", settings.runtime]
    words += ["--batch", *map(str, settings.batch), "--nms", settings.nms]
    for flag, value in (
        ("--precision", settings.precision),
        ("--timing-cache", settings.timing_cache),
        ("--workspace", settings.workspace),
        ("--optimization-level", settings.optimization_level),
        ("--timing-iterations", settings.timing_iterations),
        ("--tiling", settings.tiling),
        ("--device", settings.device or None),
    ):
        words += [] if value is None else [flag, str(value)]
    if settings.compute_capability:
        words += ["--compute-capability", *settings.compute_capability]
    words += ["--version-compatible"] if settings.version_compatible else []
    if settings.hardware_compatible != "none":
        words += ["--hardware-compatible", settings.hardware_compatible]
    return shlex.join(words)


def write_cache(path: Path, data: bytes, built: EngineInfo, settings: BuildSettings) -> str:
    """Write a timing cache, and return a note on how much time it saved.

    The cache is TensorRT's own file. `FILE.json` beside it holds the seconds that the first build
    of each model took.
    """
    beside = path.with_name(f"{path.name}.json")
    how = [
        built.onnx_sha256, built.version, built.gpu, built.profile, built.nms,
        built.version_compatible, built.hardware_compatible,
        settings.workspace, settings.optimization_level, settings.timing_iterations,
        settings.tiling, settings.hardware_compatible,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()
    first: dict[str, float] = {}
    with contextlib.suppress(BadInput):  # it only serves the note
        found = read_json(beside, fix="")
        if isinstance(found, dict):
            first = {k: s for k, s in found.items() if isinstance(s, int | float)}
    known = key in first
    before = float(first.setdefault(key, built.build_seconds))
    with atomic_pair(path, beside) as (cache, seconds):
        cache.write_bytes(data)
        seconds.write_text(json_text(first, indent=1), encoding="utf-8")
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
        return None, f"{path} saved 0 s and is not written: TensorRT-RTX takes no timings"
    if not path.exists():
        return b"", ""
    return read_bytes(path, noun="timing cache", most=_MOST_CACHE), ""


def _with_form(trt: TensorRT, nms: NmsForm, model: bytes, info: ModelInfo) -> bytes:
    """The bytes of the model with a form of NMS."""
    if nms == "graph":
        return model
    import onnx

    from retinart.export import efficient_nms, nms_plugin

    if nms == "efficient":
        changed = efficient_nms.with_plugin(onnx.ModelProto.FromString(model), info)
    else:
        nms_plugin.register(trt)
        changed = nms_plugin.with_nms_plugin(onnx.ModelProto.FromString(model), info)
    return bytes(changed.SerializeToString())
