"""The script behind `make setup` makes a virtual environment, and deletes no user's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "venv"

# Answers yes to all questions, and makes an environment whose Python does the same.
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""
# The same, but it dies while it makes one.
DYING = PYTHON + '[ "$2" != venv ] || rm "$3/bin/python"; [ "$2" != venv ]\n'


def _python(path: Path, text: str = PYTHON) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def _run(python: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, python, venv], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return _python(tmp_path / "python3")


def test_a_new_one_is_made_and_then_left_alone(tmp_path: Path, python: Path) -> None:
    venv = tmp_path / "venv"
    assert _run(python, venv).returncode == 0
    assert [p.name for p in venv.iterdir()] == ["bin"]
    (venv / "mine").touch()
    assert _run(python, venv).returncode == 0
    assert (venv / "mine").exists()


def test_one_without_pip_is_not_deleted(tmp_path: Path, python: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "mine").touch()
    ran = _run(python, venv)
    assert ran.returncode == 1
    assert f"{venv} is there, but has no pip: " in ran.stderr and "move it away" in ran.stderr
    assert (venv / "mine").exists()


def test_one_that_was_left_half_made_is_made_again(tmp_path: Path, python: Path) -> None:
    venv = tmp_path / "venv"
    assert _run(_python(tmp_path / "dying", DYING), venv).returncode != 0
    assert venv.exists() and not (venv / "bin" / "python").exists()
    assert _run(python, venv).returncode == 0
    assert [p.name for p in venv.iterdir()] == ["bin"]
