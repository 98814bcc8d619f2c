"""The trtexec command that builds what `retinart build` builds, for TensorRT's own tools."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import get_args

from retinart.engine.model.info import INPUT
from retinart.engine.tensorrt.engine_file import FrameShape, numbers
from retinart.export.settings import BuildSettings, Tiling

_LEVELS = {"same": "sameComputeCapability", "ampere": "ampere+"}


def trtexec_command(
    model: Path,
    output: Path,
    settings: BuildSettings,
    profile: tuple[FrameShape, FrameShape, FrameShape],
    version: str,
) -> str:
    """The command line, which builds the file with its own nodes for NMS.

    Args:
        version: of TensorRT. Networks are strongly typed; TensorRT 10 has to be told so.
    """
    words = ["trtexec", f"--onnx={model}", f"--saveEngine={output}", "--noTF32"]
    words += ["--profilingVerbosity=detailed"]
    words += ["--stronglyTyped"] if numbers(version)[0] < 11 else []
    for name, shape in zip(("min", "opt", "max"), profile, strict=True):
        words.append(f"--{name}Shapes={INPUT}:{'x'.join(map(str, shape))}")
    if settings.workspace is not None:
        words.append(f"--memPoolSize=workspace:{int(settings.workspace * 1024)}M")
    if settings.optimization_level is not None:
        words.append(f"--builderOptimizationLevel={settings.optimization_level}")
    if settings.timing_cache is not None:
        words.append(f"--timingCacheFile={settings.timing_cache}")
    words += ["--versionCompatible"] if settings.version_compatible else []
    if settings.hardware_compatible != "none":
        words.append(f"--hardwareCompatibilityLevel={_LEVELS[settings.hardware_compatible]}")
    if settings.timing_iterations is not None:
        words.append(f"--avgTiming={settings.timing_iterations}")
    if settings.tiling is not None:
        words.append(f"--tilingOptimizationLevel={get_args(Tiling).index(settings.tiling)}")
    words += [f"--device={settings.device}"] if settings.device else []
    return shlex.join(words)
