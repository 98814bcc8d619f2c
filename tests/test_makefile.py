"""What `make` installs: each target may be the first one that is typed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that decide what is installed, without `.venv`."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def _extras(clone: Path, *goals: str) -> list[str]:
    """The extras that these goals would install, in order."""
    said = subprocess.run(
        ["make", "-n", *goals], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    lines = [line for line in said.splitlines() if " install " in line]
    return [line.split('".[')[1].split("]")[0] for line in lines]


def _done(clone: Path, stamp: str) -> None:
    (clone / ".venv" / stamp).touch()


def test_in_a_fresh_clone(clone: Path) -> None:
    assert _extras(clone, "demo") == ["demo"]
    assert _extras(clone, "test") == _extras(clone, "setup") == ["dev"]
    assert _extras(clone, "-j", "demo", "test") == ["demo", "dev"]


def test_what_comes_is_said_before_pip(clone: Path) -> None:
    said = subprocess.run(
        ["make", "-n", "demo"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    assert 0 <= said.find("installs about 1.5 GB") < said.find("pip install")


def test_the_demo_first_and_then_the_tests(clone: Path) -> None:
    _done(clone, ".installed-demo")
    assert _extras(clone, "demo") == []
    assert _extras(clone, "test") == ["dev"]


def test_the_tests_first_and_then_the_demo(clone: Path) -> None:
    _done(clone, ".installed")
    assert _extras(clone, "demo") == _extras(clone, "test") == []
