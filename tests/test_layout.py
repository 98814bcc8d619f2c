"""The house: its folders and rooms, and which may import which."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from support import ROOT, run_python

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# folder -> the folders below it, whose names it may import. The face, src/retinart, may import all.
BELOW: dict[str, frozenset[str]] = {
    "engine": frozenset(),
    "train": frozenset({"engine"}),
    "export": frozenset({"engine", "train"}),
    "calib": frozenset({"engine", "train"}),
    "benchmarks": frozenset({"engine", "train", "export", "calib"}),
    "verify": frozenset({"engine", "train", "export", "calib", "benchmarks"}),
}
FACE = "the face (src/retinart)"

# The floors within a folder, the ground first. A room is a folder or a file, and it imports from
# those that stand before it. The folder's own `__init__.py` is the roof: nothing inside imports it.
FLOORS: dict[str, tuple[str, ...]] = {
    "engine": (
        "errors", "common", "reached_limits", "detections", "cuda", "media", "model", "evaluation",
        "runtime", "self_test", "tensorrt", "tiles", "keep", "pipeline", "stream", "detector",
        "describe", "doctor", "view", "sinks", "metrics", "job", "cluster", "accuracy_drop",
    ),
    "train": (
        "model", "data", "loss", "schedule", "memory", "ranks", "settings", "average", "initial",
        "validate", "learner", "run_folder", "stopped_run", "trainer",
    ),
    "benchmarks": (
        "program", "timing", "peers", "latency", "curve", "grid", "ablations", "pipeline",
        "growth", "int8", "operators", "ray_job", "roofline", "startup", "train_step", "resize",
        "skip_still", "tiles", "winograd",
    ),
}  # fmt: skip

# The ground floor never imports these, not even inside a function.
NOT_IN_ENGINE = frozenset({"onnx", "torch", "torchvision"})

# What an install without extras has not got.
EXTRAS_ONLY = (
    "confluent_kafka", "cuda", "matplotlib", "onnx", "onnxruntime", "paho", "pycocotools",
    "prometheus_client", "pyarrow", "pycuda", "ray", "supervision", "tensorrt", "tensorrt_rtx",
    "torch", "torchvision", "trackers",
)  # fmt: skip

MAX_LINES = 400


def folder_of(package: str) -> Path:
    return ROOT / "src" / "retinart" if package == "retinart" else ROOT / package


def python_files(package: str) -> list[Path]:
    return sorted(folder_of(package).rglob("*.py"))


def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    settings: dict[str, Any] = table["tool"]["setuptools"]
    return settings


def packages_on_disk() -> set[str]:
    found = set()
    for package in ("retinart", *BELOW):
        base = folder_of(package)
        prefix = () if package == "retinart" else (package,)
        for file in base.rglob("*.py"):
            found.add(".".join(("retinart", *prefix, *file.parent.relative_to(base).parts)))
    return found


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of all that a module imports, wherever it stands.

    `from a import b` gives `a.b`. Names in `importlib.import_module("...")` count as well.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                anchor = parts[: len(parts) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            name = function.id if isinstance(function, ast.Name) else name
            if name in ("import_module", "__import__") and node.args:
                argument = node.args[0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.lineno, argument.value


def owner(name: str) -> str | None:
    """The folder that a dotted name lives in, `FACE`, or None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "retinart":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in BELOW else FACE


def forbidden(folder: str, name: str) -> str | None:
    """Why a module of `folder` may not import `name`; None when it may."""
    target = owner(name)
    if target is not None and target != folder and target not in BELOW[folder]:
        allowed = ", ".join(sorted(BELOW[folder])) or "none of the others"
        return f"{folder} may import {allowed}, and {name} is of {target}"
    if folder == "engine" and name.split(".")[0] in NOT_IN_ENGINE:
        return f"engine runs without {name.split('.')[0]}"
    return None


def test_pyproject_lists_every_package() -> None:
    listed, present = set(setuptools_table()["packages"]), packages_on_disk()
    assert not present - listed, f"add to packages in pyproject.toml: {sorted(present - listed)}"
    assert not listed - present, f"in pyproject.toml, not on disk: {sorted(listed - present)}"


def test_every_package_has_an_init_file() -> None:
    mapping = setuptools_table()["package-dir"]
    for package in setuptools_table()["packages"]:
        top = ".".join(package.split(".")[:2])
        if top in mapping:
            inner = package.split(".")[2:]
        else:
            top, inner = "retinart", package.split(".")[1:]
        assert (ROOT.joinpath(mapping[top], *inner) / "__init__.py").is_file(), package


def test_package_list_is_sorted_and_unique() -> None:
    packages = setuptools_table()["packages"]
    assert packages == sorted(set(packages))


@pytest.mark.parametrize("folder", BELOW)
def test_arrows_only_point_down(folder: str) -> None:
    wrong = []
    for file in python_files(folder):
        package = ".".join(["retinart", *file.parent.relative_to(ROOT).parts])
        for line, name in imported_names(ast.parse(file.read_bytes()), package):
            reason = forbidden(folder, name)
            if reason:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {reason}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("folder", "source", "allowed"),
    [
        ("engine", "import numpy", True),
        ("engine", "from retinart.engine.errors import RetinartError", True),
        ("engine", "from . import errors", True),
        ("engine", "from .. import train", False),
        ("engine", "import retinart", False),
        ("engine", "from retinart import Detector", False),
        ("engine", "from retinart import export", False),
        ("engine", "def f():\n    import torch", False),
        ("engine", "import importlib\nimportlib.import_module('onnx.helper')", False),
        ("engine", "import onnxruntime", True),
        ("train", "import torch", True),
        ("train", "from retinart.engine import ModelInfo", True),
        ("train", "from retinart.export.graph import build", False),
        ("export", "from retinart.train import RetinaNet", True),
        ("export", "import retinart.calib", False),
        ("calib", "import retinart.export", False),
        ("benchmarks", "from retinart import calib, engine, export, train", True),
        ("benchmarks", "from retinart.cli import main", False),
        ("benchmarks", "from retinart.verify import judge", False),
        ("verify", "from retinart.benchmarks.program import run", True),
    ],
)
def test_the_check_of_arrows_itself(folder: str, source: str, allowed: bool) -> None:
    names = [name for _, name in imported_names(ast.parse(source), f"retinart.{folder}")]
    assert names
    assert all(forbidden(folder, name) is None for name in names) is allowed


def module_name(path: str) -> str:
    """The dotted name of a file of ours, by its path in the repository."""
    parts = path.removeprefix("src/retinart/").removesuffix(".py").split("/")
    return ".".join(["retinart", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def arrows(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """By module the other modules that it imports, wherever the import stands.

    Args:
        sources: texts by their paths in the repository.
    """
    modules = {module_name(path) for path in sources}
    found: dict[str, set[str]] = {}
    for path, text in sources.items():
        module = module_name(path)
        package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
        targets = set()
        for _, name in imported_names(ast.parse(text), package):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            targets.add(name)
        found[module] = targets - {module, ""}
    return found


def upward(found: Mapping[str, set[str]]) -> list[str]:
    """What imports a room of its folder that does not stand before its own."""
    wrong = []
    for module, targets in found.items():
        folder, floor = floor_of(module)
        for target in sorted(targets):
            other, lower = floor_of(target)
            if floor is not None and folder == other and lower is None:
                wrong.append(f"{module} imports {target}, the roof of its folder")
            elif floor is not None and lower is not None and folder == other and lower > floor:
                wrong.append(f"{module} imports {target}, which stands above it in FLOORS")
    return wrong


def floor_of(module: str) -> tuple[str, int | None]:
    """A module's folder and its room's place in FLOORS; None for the roof, and without floors."""
    _, folder, room, *_ = [*module.split("."), "", ""]
    if folder not in FLOORS or not room:
        return folder, None
    assert room in FLOORS[folder], f"add {room} to FLOORS of {folder}, above all that it imports"
    return folder, FLOORS[folder].index(room)


def circle(found: Mapping[str, set[str]]) -> list[str]:
    """A circle of modules: each imports the next one, and the last one the first."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return [str(name) for name in reversed(error.args[1])]
    return []


def sources_on_disk() -> dict[str, str]:
    files = [file for package in ("retinart", *BELOW) for file in python_files(package)]
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}


def test_arrows_between_rooms_point_down() -> None:
    wrong = upward(arrows(sources_on_disk()))
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_in_a_circle() -> None:
    found = circle(arrows(sources_on_disk()))
    assert not found, " -> ".join(found)


@pytest.mark.parametrize("folder", FLOORS)
def test_every_floor_is_a_room(folder: str) -> None:
    there = {file.relative_to(ROOT / folder).parts[0] for file in python_files(folder)}
    assert {name.removesuffix(".py") for name in there - {"__init__.py"}} == set(FLOORS[folder])


@pytest.mark.parametrize(
    ("path", "text", "up", "circular"),
    [
        ("engine/media/images.py", "from retinart.engine.errors import BadInput", False, False),
        ("engine/media/images.py", "from retinart.engine.media import video", False, True),
        ("engine/media/images.py", "import retinart.engine.detector", True, True),
        ("engine/media/images.py", "from retinart.engine import Detector", True, True),
        (
            "engine/media/video.py",
            "def f():\n    from retinart.engine import detector",
            True,
            False,
        ),
        ("engine/errors.py", "from retinart.engine.media.images import Image", True, False),
        ("engine/detector.py", "from retinart.engine import Detector", True, True),
        ("export/graph.py", "from retinart.engine import Detector", False, False),
        ("export/graph.py", "from retinart.export.export import build", False, True),
    ],
)
def test_the_check_of_rooms_itself(path: str, text: str, up: bool, circular: bool) -> None:
    """An invented tree, in which one file gets another text."""
    tree = {
        "engine/__init__.py": "from retinart.engine.detector import Detector",
        "engine/errors.py": "",
        "engine/media/__init__.py": "",
        "engine/media/images.py": "",
        "engine/media/video.py": "from retinart.engine.media.images import Image",
        "engine/detector.py": "from retinart.engine.media import images",
        "export/__init__.py": "",
        "export/graph.py": "",
        "export/export.py": "from retinart.export import graph",
    }
    found = arrows(tree)
    assert not upward(found) and not circle(found)
    found = arrows({**tree, path: text})
    assert (bool(upward(found)), bool(circle(found))) == (up, circular)


def test_a_file_fits_in_the_head() -> None:
    files = [file for package in ("retinart", *BELOW, "tests") for file in python_files(package)]
    long = {
        str(file.relative_to(ROOT)): lines
        for file in files
        if (lines := len(file.read_bytes().splitlines())) > MAX_LINES
    }
    assert not long, f"longer than {MAX_LINES} lines: {long}"


IMPORT_ALL = """
import importlib, pkgutil, sys
data, *extras = sys.argv[1:]
for name in extras:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
import retinart, retinart.cli, retinart.engine
names = [m.name for m in pkgutil.walk_packages(retinart.engine.__path__, "retinart.engine.")]
for name in names:
    importlib.import_module(name)
checked = retinart.cli.main(
    ["data", "check", "--no-open", "--images", f"{data}/test", "--annotations", f"{data}/test.json"]
)
print(checked, len(names))
"""


def test_engine_and_face_import_without_any_extra() -> None:
    """`retinart data check` needs none of them either."""
    assets = folder_of("retinart") / "demo" / "assets"
    done = run_python("-W", "error", "-c", IMPORT_ALL, str(assets), *EXTRAS_ONLY)
    assert done.returncode == 0, done.stderr
    modules = [file for file in python_files("engine") if file.parent != folder_of("engine")]
    modules += [file for file in folder_of("engine").glob("*.py") if file.name != "__init__.py"]
    assert done.stdout.splitlines()[-2:] == ["nothing stops training", f"0 {len(modules)}"]


PROJECTS = ("torchvision", "detectron2", "mmdetection", "odtk")


def asks_whose_model(text: str) -> list[int]:
    """Lines whose condition has a project's name in it, or `variant.source`."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            question: ast.AST = node.test
        elif isinstance(node, ast.Compare | ast.Match):
            question = node
        else:
            continue
        for part in ast.walk(question):
            named = isinstance(part, ast.Constant) and str(part.value).startswith(PROJECTS)
            source = isinstance(part, ast.Attribute) and part.attr == "source"
            if named or (source and ast.unparse(part).endswith("variant.source")):
                lines.append(node.lineno)
    return lines


def test_no_code_asks_whose_model_it_is() -> None:
    asked = [
        f"{path}:{line}"
        for path, text in sources_on_disk().items()
        if path.startswith(("engine", "train", "export", "calib"))
        for line in asks_whose_model(text)
    ]
    assert not asked, (
        f"code branches on the project that a model comes from: {asked}. Add a field to Variant "
        "that says how the projects differ, set it in export/checkpoint_projects.py, and branch "
        "on that field"
    )


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("if info.variant.source: pass", True),
        ("x = 1 if variant.source == name else 2", True),
        ("if name == 'torchvision retinanet_resnet50_fpn': pass", True),
        ("match name:\n    case 'odtk': pass", True),
        ("print(variant.source)", False),
        ("if frame.source == name: pass", False),
        ("if variant.clip_before_nms: pass", False),
    ],
)
def test_the_check_of_whose_model_itself(text: str, asks: bool) -> None:
    assert bool(asks_whose_model(text)) is asks
