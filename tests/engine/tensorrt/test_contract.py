"""The APIs of TensorRT, CUDA and pycuda have what our code calls, with the arguments we give.

mypy checks that the code uses nothing beyond `engine/tensorrt/api.py`. Here those protocols are
compared with the real Python bindings of TensorRT 10 and 11, imported over stand-in libraries that
do nothing (`make bindings`), and with TensorRT-RTX. That shows that a call is possible, not that it
does the right thing.
"""

from __future__ import annotations

import ctypes
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from retinart.engine.cuda import devices, graphs
from retinart.engine.tensorrt import api as tensorrt_api
from retinart.engine.tensorrt.api import RTX_ONLY, TENSORRT_ONLY, installed
from retinart.engine.tensorrt.kernels import Kernel, source_path

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ("10.16.1.11", "11.4.0.106")

# Runs in a process of its own, as each version is another module. Prints every class's members:
# for a method its signatures as pybind11 writes them, for a property whether it can be set.
LOOK = """
import importlib, inspect, json, sys
trt = importlib.import_module(sys.argv[1])
wanted = json.loads(sys.argv[2])

def look(owner, name):
    member = inspect.getattr_static(owner, name, None)
    if isinstance(member, property):
        return {"settable": member.fset is not None}
    member = getattr(owner, name, None)
    if member is None:
        return None
    if inspect.isfunction(member):  # one of the module's own, in Python
        return {"doc": f"{name}{inspect.signature(member)}"}
    return {"doc": member.__doc__ or ""} if callable(member) else {"value": repr(member)}

found = {c: {n: look(getattr(trt, c), n) for n in names} if hasattr(trt, c) else None
         for c, names in wanted.items() if c != "TensorRT"}
found["TensorRT"] = {}
for name in wanted["TensorRT"]:
    thing = getattr(trt, name, None)
    found["TensorRT"][name] = (
        look(thing, "__init__") if inspect.isclass(thing) else look(trt, name))
print(json.dumps(found))
"""

# Our own logger and progress monitor, made on the real base classes and called as TensorRT calls.
USE = """
import importlib, sys, threading
trt = importlib.import_module(sys.argv[1])
from retinart.engine.tensorrt.api import problems_log
from retinart.export import tensorrt_build
log = problems_log(trt)
for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    log.log(getattr(trt.ILogger.Severity, severity), severity)
assert log.errors == ["INTERNAL_ERROR", "ERROR"], log.errors
assert problems_log(trt) is log and log.errors == []
assert trt.init_libnvinfer_plugins(log, "") in (True, False)
seen, stop = [], threading.Event()
monitor = tensorrt_build._progress_monitor(trt, lambda f, phase: seen.append((f, phase)), stop)
assert isinstance(monitor, trt.IProgressMonitor)
monitor.phase_start("all", None, 2)
monitor.phase_start("part", "all", 4)
assert monitor.step_complete("part", 1) is True and seen == [(0.25, "part")], seen
stop.set()
assert monitor.step_complete("part", 2) is False
monitor.phase_finish("part")
if trt.__version__.startswith("10."):
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert 1 << int(flag) == tensorrt_build._STRONGLY_TYPED
print("good")
"""

Members = dict[str, Any]


def protocols() -> dict[str, type]:
    """The classes of `engine/tensorrt/api.py`."""
    return {
        name: thing
        for name, thing in vars(tensorrt_api).items()
        if inspect.isclass(thing) and thing.__module__ == tensorrt_api.__name__
    }


def members(protocol: type) -> dict[str, list[str] | None]:
    """A protocol's members; for a method the names of its arguments."""
    result: dict[str, list[str] | None] = dict.fromkeys(protocol.__annotations__)
    for name, thing in vars(protocol).items():
        if inspect.isfunction(thing) and not name.startswith("_"):
            result[name] = list(inspect.signature(thing).parameters)[1:]
        elif isinstance(thing, property):
            result[name] = None
    return result


def run(code: str, module: str, *arguments: str, path: Path | None = None) -> str:
    """Run code with a module's folder on the path, and return what it prints."""
    extra = {} if path is None else {"PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code, module, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | extra,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[*VERSIONS, "tensorrt-rtx"])
def module(request: pytest.FixtureRequest) -> tuple[str, Path | None]:
    """A module to import, and the folder that it lies in when it is not installed."""
    if request.param == "tensorrt-rtx":
        if not installed("tensorrt-rtx"):
            pytest.skip("TensorRT-RTX is not installed")
        return "tensorrt_rtx", None
    folder = ROOT / "build" / "bindings" / request.param
    if not (folder / ".done").exists():
        pytest.skip(f"TensorRT's bindings {request.param} are not here: `make bindings` gets them")
    return "tensorrt_bindings", folder


def test_the_api_that_is_used_exists(module: tuple[str, Path | None]) -> None:
    name, folder = module
    others = TENSORRT_ONLY if name == "tensorrt_rtx" else RTX_ONLY
    wanted = {
        cls: {n: args for n, args in members(protocol).items() if f"{cls}.{n}" not in others}
        for cls, protocol in protocols().items()
        if cls not in others
    }
    found: dict[str, Members | None] = json.loads(run(LOOK, name, json.dumps(wanted), path=folder))
    assert problems(wanted, found) == []
    assert {"TensorRT", "OnnxParser", "IExecutionContext"} <= set(wanted)
    assert sum(map(len, wanted.values())) > 40


def test_what_only_one_has_is_named(module: tuple[str, Path | None]) -> None:
    """TensorRT has every entry of its list and none of TensorRT-RTX's, and the other way round."""
    wanted = {cls: members(protocol) for cls, protocol in protocols().items()}
    names = {f"{cls}.{name}" for cls, some in wanted.items() for name in some}
    assert {*names, *wanted} >= RTX_ONLY | TENSORRT_ONLY
    name, folder = module
    found: dict[str, Members | None] = json.loads(run(LOOK, name, json.dumps(wanted), path=folder))
    there = {
        entry
        for entry in RTX_ONLY | TENSORRT_ONLY
        for cls, _, member in [entry.partition(".")]
        if ((found[cls] or {}).get(member) if member else found[cls]) is not None
    }
    assert there == (RTX_ONLY if name == "tensorrt_rtx" else TENSORRT_ONLY)


def test_contexts_are_made_from_a_strategy_or_a_configuration(
    module: tuple[str, Path | None],
) -> None:
    name, folder = module
    wanted = json.dumps({"ICudaEngine": ["create_execution_context"], "TensorRT": []})
    doc = json.loads(run(LOOK, name, wanted, path=folder))["ICudaEngine"]
    doc = doc["create_execution_context"]["doc"]
    for argument in ("strategy", "runtime_config"):
        assert _call("create_execution_context", [argument], doc) == []


def test_our_logger_and_monitor_on_the_real_classes(module: tuple[str, Path | None]) -> None:
    name, folder = module
    assert run(USE, name, path=folder).strip() == "good"


def problems(
    wanted: dict[str, dict[str, list[str] | None]], found: dict[str, Members | None]
) -> list[str]:
    """Where what is wanted is not what was found."""
    bad = []
    for cls, names in wanted.items():
        real = found[cls]
        if real is None:
            bad.append(f"there is no class {cls}")
            continue
        for name, arguments in names.items():
            member = real[name]
            if member is None:
                bad.append(f"there is no {cls}.{name}")
            elif arguments is not None:
                bad += _call(f"{cls}.{name}", arguments, member.get("doc"))
            elif not member.get("settable", True) and _is_set(cls, name):
                bad.append(f"{cls}.{name} cannot be set")
    return bad


def _is_set(cls: str, name: str) -> bool:
    return name in protocols()[cls].__annotations__  # read-only ones are properties


def _call(name: str, arguments: list[str], doc: str | None) -> list[str]:
    """Why no overload takes these arguments."""
    if doc is None:
        return [f"{name} is not a method"]
    overloads = [_parameters(text) for text in re.findall(r"\w+\((.*?)\)(?: ->|$)", doc, re.M)]
    for names, required in overloads:
        given = names[: len(arguments)]
        if required <= len(arguments) <= len(names) and arguments == given:
            return []
    return [f"{name} is called with {arguments}, and takes {overloads}"]


def _parameters(text: str) -> tuple[list[str], int]:
    """The names in a pybind11 signature without `self`, and how many must be given."""
    parts = [p.strip() for p in re.split(r",(?![^\[<(]*[\]>)])", text) if p.strip()]
    parts = [p for p in parts if not p.startswith("self")]
    return [p.split(":")[0] for p in parts], sum("=" not in p for p in parts)


def test_the_comparison_itself() -> None:
    doc = "f(self: m.C, a: int, b: list[tuple[int, m.D]] = <E.F: 0>) -> bool\n\nSays (a, b)."
    assert _parameters("self: m.C, a: int, b: x[int, int] = <E.F: 0>") == (["a", "b"], 1)
    assert _call("C.f", ["a"], doc) == _call("C.f", ["a", "b"], doc) == []
    for arguments in ([], ["x"], ["a", "b", "c"]):
        assert _call("C.f", arguments, doc)
    assert problems({"Builder": {"f": []}}, {"Builder": None}) == ["there is no class Builder"]
    none = {"Builder": {"f": None}}
    assert problems({"Builder": {"f": ["a"]}}, none) == ["there is no Builder.f"]  # type: ignore[arg-type]


KINDS = {
    ctypes.c_int: "int",
    ctypes.c_uint: "unsigned int",
    ctypes.c_ulonglong: "unsigned long long",
    ctypes.c_void_p: "pointer",
    ctypes.c_char_p: "pointer",
}


@pytest.fixture(scope="module")
def cuda_header() -> str:
    """cuda.h as the compiler sees it."""
    include = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    if not (include / "cuda.h").is_file():
        pytest.skip(f"there is no cuda.h in {include}: set CUDA_HOME")
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    done = subprocess.run(
        ["gcc", "-E", "-P", "-x", "c", "-"],
        input=f'#include "{include}/cuda.h"\n',
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("name", [*devices.SIGNATURES, *graphs.SIGNATURES])
def test_calls_of_the_driver_are_those_of_cuda_h(name: str, cuda_header: str) -> None:
    signatures: dict[str, Any] = {**devices.SIGNATURES, **graphs.SIGNATURES}
    ours = signatures[name]
    prototype = re.search(rf"CUresult\s+{name}\(([^;]*)\);", cuda_header)
    assert prototype, f"cuda.h declares no {name}"
    theirs = [_kind(argument) for argument in prototype[1].split(",")]
    assert [KINDS.get(t, "pointer") for t in ours] == theirs


def _kind(argument: str) -> str:
    handles = ("CUstream", "CUgraph", "CUgraphExec")
    kind = argument.replace("const ", "").strip().rsplit(" ", 1)[0].strip()
    if "*" in argument or kind in handles:
        return "pointer"
    return {"CUdevice": "int", "cuuint64_t": "unsigned long long"}.get(
        kind, "int" if kind.startswith("CU") else kind
    )  # enumerations are ints


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("CU_STREAM_CAPTURE_MODE_THREAD_LOCAL", graphs._THREAD_LOCAL),
        ("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", devices._CAPABILITY[0]),
        ("CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR", devices._CAPABILITY[1]),
    ],
)
def test_constants_of_the_driver(constant: str, value: int, cuda_header: str) -> None:
    assert re.search(rf"\b{constant} = {value}\b", cuda_header)


@pytest.mark.parametrize("kernel", get_args(Kernel))
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_89", "sm_90", "sm_120"])
def test_the_kernels_compile(architecture: str, kernel: Kernel, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc")
    flags = ["-cubin", f"-arch={architecture}", "-fmad=false", "-Werror=all-warnings"]
    done = subprocess.run(
        [nvcc, *flags, "-o", tmp_path / "kernel.cubin", source_path(kernel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernel.cubin").stat().st_size > 1000
