"""The house: its packages, which may import which, and that the README names real things."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# folder -> the folders below it, whose names it may import. The face, src/retinart, may import all.
BELOW: dict[str, frozenset[str]] = {
    "engine": frozenset(),
    "train": frozenset({"engine"}),
    "export": frozenset({"engine", "train"}),
    "calib": frozenset({"engine", "train"}),
    "benchmarks": frozenset({"engine", "train", "export", "calib"}),
}
FACE = "the face (src/retinart)"

# The ground floor never imports these, not even inside a function.
NOT_IN_ENGINE = frozenset({"onnx", "torch", "torchvision"})

# What an install without extras has not got.
EXTRAS_ONLY = (
    "av",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pycocotools",
    "pycuda",
    "supervision",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
    "torchvision",
    "trackers",
)

MAX_LINES = 400

# what is made here, for where git cannot be asked
NOT_SHIPPED = frozenset({".git", ".venv", "build", "dist", "runs"})


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
    ],
)
def test_the_check_of_arrows_itself(folder: str, source: str, allowed: bool) -> None:
    names = [name for _, name in imported_names(ast.parse(source), f"retinart.{folder}")]
    assert names
    assert all(forbidden(folder, name) is None for name in names) is allowed


def test_a_file_fits_in_the_head() -> None:
    files = [file for package in ("retinart", *BELOW, "tests") for file in python_files(package)]
    long = {
        str(file.relative_to(ROOT)): lines
        for file in files
        if (lines := len(file.read_bytes().splitlines())) > MAX_LINES
    }
    assert not long, f"longer than {MAX_LINES} lines: {long}"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT / "tests",  # not the root, where bare `engine` and `train` could be imported
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # importing it now raises ModuleNotFoundError
import retinart, retinart.cli, retinart.engine
names = [m.name for m in pkgutil.walk_packages(retinart.engine.__path__, "retinart.engine.")]
for name in names:
    importlib.import_module(name)
print(*names, sep="\\n")
"""


def test_engine_and_face_import_without_any_extra() -> None:
    done = run_python("-W", "error", "-c", IMPORT_ALL, *EXTRAS_ONLY)
    assert done.returncode == 0, done.stderr
    modules = [file for file in python_files("engine") if file.parent != folder_of("engine")]
    modules += [file for file in folder_of("engine").glob("*.py") if file.name != "__init__.py"]
    assert len(done.stdout.split()) == len(modules)


def readme() -> str:
    file = ROOT / "README.md"
    if not file.is_file():
        pytest.skip("there is no README.md")
    return file.read_text("utf-8")


def shipped_files() -> set[Path]:
    """What a clone would hold: all that git has or would take. Without git, all that lies here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = {ROOT / name for name in listed.stdout.split("\0") if name}
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = {p for p in ROOT.rglob("*") if p.relative_to(ROOT).parts[0] not in NOT_SHIPPED}
    return {path for path in found if path.is_file()}


def links_in(text: str) -> list[str]:
    """Targets of relative links in Markdown, but not of those in code."""
    text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z][a-z+.-]*:|#", target)]


def test_relative_links_lead_to_what_is_shipped() -> None:
    """A file that .gitignore drops is here and in no clone, so the disk alone does not tell."""
    files = shipped_files()
    there = files | {folder for file in files for folder in file.parents}
    pages = sorted(file for file in files if file.suffix == ".md")
    assert ROOT / "CONTRIBUTING.md" in pages
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in links_in(page.read_text("utf-8"))
        if Path(os.path.normpath(page.parent / target.split("#", 1)[0])) not in there
    ]
    assert not missing, "links to what no clone has:\n" + "\n".join(missing)


def test_links_are_found_outside_of_code_only() -> None:
    text = (
        "[a](a.md) and ![b](<b.png>) `[c](c.md)` [d](https://d) [e](#e) [`f`](f.md#g)\n"
        '    [h](h.md)\n```\n[i](i.md)\n```\n<img src="j.png">\n'
    )
    assert links_in(text) == ["a.md", "b.png", "f.md#g", "j.png"]


def test_the_readme_names_the_pytorch_of_the_constraints() -> None:
    """Another version would be replaced by the large one as soon as `make` installs."""
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    named = re.findall(r"\btorch==\S+", readme())
    assert named and set(named) <= set(pins), f"README.md: {named}, constraints.txt has another"


def commands_in(text: str) -> set[str]:
    """Subcommands of `retinart` in fenced blocks and code spans."""
    fence = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    code = fence.findall(text) + re.findall(r"`[^`\n]+`", fence.sub("", text))
    pattern = re.compile(r"(?:^|[`\s/])retinart ([a-z][a-z-]*)(?![\w=.])", re.MULTILINE)
    return {
        match
        for piece in code
        for line in piece.splitlines()
        if not re.match(r"[\s`>]*(?:from|import) ", line)
        for match in pattern.findall(line)
    }


def test_commands_that_the_readme_names_exist() -> None:
    unknown = {}
    for command in sorted(commands_in(readme())):
        done = run_python("-m", "retinart", command, "--help")
        if done.returncode:
            unknown[command] = done.stderr.strip()[-200:]
    assert not unknown, f"README.md names commands that there are not: {unknown}"


def test_commands_are_found_in_code_only() -> None:
    text = (
        "Then retinart sings.\n`retinart detect a.onnx`\n```sh\nmake demo\n"
        ".venv/bin/retinart export x\npython -m retinart make-scenes d\n```\n"
        '`pip install "retinart[train]"` and `import retinart as r`\n'
    )
    assert commands_in(text) == {"detect", "export", "make-scenes"}


def test_no_code_asks_whose_model_it_is() -> None:
    """Projects differ in fields of `Variant`, and nothing branches on a project's name."""
    projects = ("torchvision", "detectron2", "mmdetection", "odtk")
    asked = []
    for package in ("engine", "train", "export", "calib"):
        for file in python_files(package):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.If | ast.IfExp | ast.While):
                    question: ast.AST = node.test
                elif isinstance(node, ast.Compare | ast.Match):
                    question = node
                else:
                    continue
                for part in ast.walk(question):
                    named = isinstance(part, ast.Constant) and str(part.value).startswith(projects)
                    if named or (isinstance(part, ast.Attribute) and part.attr == "source"):
                        asked.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not asked, f"code branches on whose model it is: {asked}"
