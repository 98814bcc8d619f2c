"""The completion script, tried in the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]

# As bash does when Tab is pressed behind the last word.
BASH = """
set -e
source "$1"
cd "$2"
shift 2
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMPREPLY=()
$(complete -p retinart | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(retinart: Command, tmp_path: Path) -> Callable[..., list[str]]:
    """What bash offers for the last of some words."""
    if shutil.which("bash") is None:
        pytest.skip("bash is absent")
    ran = retinart("completion", "bash")
    assert (ran.returncode, ran.stderr) == (0, "")
    script, folder = tmp_path / "script", tmp_path / "folder"
    script.write_text(ran.stdout)
    folder.mkdir()
    for name in ("model.onnx", "notes.txt"):
        (folder / name).touch()
    (folder / "pictures").mkdir()

    def offered(*words: str) -> list[str]:
        command = ["bash", "-c", BASH, "bash", str(script), str(folder), "retinart", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return sorted(done.stdout.split())

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ca",), ["calibrate"]),
        (("data", "ch"), ["check"]),
        (("calibrate", "--max"), ["--max-drop", "--max-pixels"]),
        (("calibrate", "model.onnx", "--method", "m"), ["minmax", "mse"]),
        (("detect", "mo"), ["model.onnx"]),
        (("eval", "model.onnx", "--images", ""), ["pictures"]),
    ],
)
def test_bash_offers(
    complete: Callable[..., list[str]], words: tuple[str, ...], expected: list[str]
) -> None:
    assert complete(*words) == expected


def test_zsh_reads_the_script(retinart: Command, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is absent")
    script = tmp_path / "_retinart"
    script.write_text(retinart("completion", "zsh").stdout)
    subprocess.run(["zsh", "-n", str(script)], check=True, timeout=60)
    assert script.read_text().startswith("#compdef retinart\n")
