"""The wheel and the sdist: what they hold, and that they work where a user installs them.

The installations take minutes and the network, so they run only for the interpreters that
RETINART_PYTHONS names: `make packages`.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from test_layout import python_files, setuptools_table
from test_pages import shipped_files

from support import ROOT, Once

PYTHONS = os.environ.get("RETINART_PYTHONS", "").split()
NOBODY = 65534
OLDEST = "3.11.2"  # Debian 12's; constraints.txt is for 3.11
# Package data beside the Python files, by folder of the repository and by package.
DATA = {
    "src/retinart/py.typed": "retinart/py.typed",
    "benchmarks/results/bccd/tiny.pt": "retinart/benchmarks/results/bccd/tiny.pt",
}
FOLDERS = {
    "src/retinart/demo/assets/": "retinart/demo/assets/",
    "engine/tensorrt/": "retinart/engine/tensorrt/",
    "engine/view/": "retinart/engine/view/",
    "export/bundle/": "retinart/export/bundle/",
}
USER = """
import numpy as np
import retinart

def boxes(path: str) -> list[str]:
    with retinart.Detector(path) as detect:
        found = detect(np.zeros((480, 640, 3), np.uint8))
        return [detect.classes[i] for i in found.class_id]

reveal_type(boxes("a.onnx"))
reveal_type(retinart.read_info("a.onnx"))
retinart.Detector(3)
"""


@pytest.fixture(scope="session")
def built(once: Once) -> Path:
    """A folder with the sdist, and the wheel that was built from it, of what git has."""

    def make(folder: Path) -> None:
        source = folder / "source"
        for file in shipped_files():
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
        _run(sys.executable, "-c", code, cwd=source)
        shutil.rmtree(source)
        pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
        _run(*pip, "--wheel-dir", folder, *folder.glob("*.tar.gz"), cwd=folder)

    return once("packages", make)


def _run(*words: str | Path, **more: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        [str(word) for word in words], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def _expected() -> set[str]:
    """What a wheel holds, without its metadata."""
    names = set(DATA.values())
    for package in ("retinart", "engine", "train", "export", "calib", "benchmarks", "verify"):
        for file in python_files(package):
            path = file.relative_to(ROOT).as_posix().removeprefix("src/retinart/")
            names.add(f"retinart/{path}")
    for file in shipped_files():
        path = file.relative_to(ROOT).as_posix()
        for folder, inner in FOLDERS.items():
            if path.startswith(folder) and file.suffix != ".py":
                names.add(inner + path.removeprefix(folder))
    return names


def test_the_wheel_holds_what_it_needs_and_nothing_else(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        described = next(name for name in file.namelist() if name.endswith("/METADATA"))
        text = file.read(described).decode()
        licences = [name for name in file.namelist() if "/licenses/" in name]
    assert names - _expected() == set(), "too much"
    assert _expected() - names == set(), "missing"
    assert [Path(name).name for name in licences] == ["LICENSE"]
    assert wheel.stat().st_size < 16e6
    assert "Requires-Dist: torch" in text and all(
        "extra ==" in line for line in text.splitlines() if line.startswith("Requires-Dist: torch")
    )


def test_the_sdist_holds_the_sources_of_the_wheel(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as file:
        names = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", *DATA} <= names
    packages = len(setuptools_table()["packages"])
    assert sum(name.endswith("/__init__.py") for name in names) >= packages
    parts = {name.split("/")[0] for name in names}
    assert not parts & {"build", "runs", ".venv", ".git", "dist"}


def test_the_pins_fit_the_oldest_python(tmp_path: Path) -> None:
    """A pin that wanted 3.11.5 stopped `make test` on Debian 12."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(Requirement(line).name) for line in lines if line and line[0] != "#"}
    installed = {canonicalize_name(d.name): d for d in metadata.distributions()}
    pinned = [installed[name] for name in pins & installed.keys()]
    assert len(pinned) > 50
    assert _refusing(OLDEST, pinned) == []

    (tmp_path / "made-1.0.dist-info").mkdir()
    made = "Metadata-Version: 2.4\nName: made\nVersion: 1.0\nRequires-Python: >=3.11.5\n"
    (tmp_path / "made-1.0.dist-info" / "METADATA").write_text(made)
    found = _refusing(OLDEST, metadata.distributions(path=[str(tmp_path)]))
    assert found == ["made 1.0 wants Python >=3.11.5"]


def _refusing(python: str, distributions: Iterable[metadata.Distribution]) -> list[str]:
    """The distributions that pip would not install on a version of Python."""
    return [
        f"{d.name} {d.version} wants Python {wanted}"
        for d in distributions
        if (wanted := d.metadata.json.get("requires_python"))
        and not SpecifierSet(str(wanted)).contains(python)
    ]


def test_a_wheel_forgets_modules_that_are_gone(tmp_path: Path) -> None:
    """`pip install .` left its files in build/lib, and the next wheel also packed what was gone."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "small"\nversion = "1"\n')
    for name in ("small", "build/lib/small"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "build/lib/small/gone.py").touch()
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    _run(sys.executable, "-c", code, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as file:
        modules = [name for name in file.namelist() if name.endswith(".py")]
    assert modules == ["small/__init__.py"]


@pytest.mark.long
@pytest.mark.parametrize("python", PYTHONS or [""])
def test_an_empty_environment(python: str, built: Path, place: Path) -> None:
    """Wheel and sdist, in a path with spaces and letters that are not ASCII."""
    if not python:
        pytest.skip("it takes minutes and the network for each interpreter: make packages")
    if shutil.which(python) is None or "3." not in _run(python, "--version"):
        pytest.skip(f"there is no {python}")
    venv = place / "venv"
    _run(python, "-m", "venv", venv)
    print(_run(python, "--version"), end="")
    own = venv / "bin" / "python"
    pip = (own, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "install", *built.glob("*.whl"))
    assert "No broken requirements" in _run(*pip, "check")
    installed = _record(venv)
    _types(own, place)
    _demo(venv, place)
    _run(*pip, "install", "--no-deps", "--force-reinstall", *built.glob("*.tar.gz"))
    assert _record(venv) == installed


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(prefix="retinart-packages-"))
    folder.chmod(0o755)
    inner = folder / "mit Leerzeichen, ü, é, 漢字"
    inner.mkdir()
    yield inner
    shutil.rmtree(folder)


def _record(venv: Path) -> set[str]:
    """The files that were installed, without bytecode and pip's notes."""
    record = next(venv.glob("lib/python*/site-packages/retinart-*.dist-info/RECORD"))
    names = {row[0] for row in csv.reader(record.read_text("utf-8").splitlines())}
    notes = ("direct_url.json", "REQUESTED", ".pyc")
    return {name for name in names if not name.endswith(notes)}


def _types(python: Path, place: Path) -> None:
    """mypy sees retinart's types, and an error in the user's code."""
    (place / "user.py").write_text(USER)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python]
    done = subprocess.run(
        [*map(str, mypy), "--cache-dir", os.devnull, "user.py"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in lines if "note" in line][:2] == [
        'note: Revealed type is "list[str]"',
        'note: Revealed type is "retinart.engine.model.info.ModelInfo"',
    ], done.stdout + done.stderr
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 1 and '"Detector" has incompatible type "int"' in errors[0], lines


def _demo(venv: Path, place: Path) -> None:
    """As another user than root, with a home that is read-only, from the root of the disk."""
    home, out = place / "home", place / "out"
    home.mkdir(mode=0o555)
    out.mkdir()
    more: dict[str, object] = {}
    if os.geteuid() == 0:
        os.chown(out, NOBODY, NOBODY)
        more = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        try:
            _run(venv / "bin" / "python", "-c", "", **more)
        except PermissionError:
            pytest.fail("other users may not run this Python: name one outside of a private home")
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    if "LD_LIBRARY_PATH" in os.environ:  # of a Python that lies elsewhere than it was built for
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    said = _run(
        venv / "bin" / "retinart", "demo", "--out", out / "größe 1", cwd="/", env=environment,
        **more,
    )  # fmt: skip
    assert said.splitlines()[-1] == str(out / "größe 1" / "demo.html")
    assert (out / "größe 1" / "demo.html").stat().st_size > 1e6
    assert list(home.iterdir()) == []
    print(said, end="")
