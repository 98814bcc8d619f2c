"""The commands of the pages that a new user follows, run in order, on small data."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from retinart.train.data.scenes import make_scenes
from support import ROOT, write_video

pytestmark = pytest.mark.slow

PICTURES = 4  # in place of the user's
SMALL = {
    "--eval-images val --max-drop 0.5": "--eval-images val",
    "--num 200": f"--num {PICTURES}",
    "--imgsz 600": "--imgsz 128",
}

# Parts of lines that cannot run here, and the reason.
CANNOT = {
    "pip ": "installs",
    "git ": "has no address",
    "python": "is run by tests of its own, or needs a GPU",
    "retinart doctor": "has tests of its own",
    "retinart demo": "has tests of its own",
    "make ": "has tests of its own",
    "rtsp://": "needs a camera",
    " 0 ": "needs a webcam",
    ".engine": "needs a GPU",
    "CKPT": "needs a GPU",
    "--images DIR": "names no data",
}


def blocks(text: str) -> list[str]:
    """The commands in the indented blocks of a page."""
    whole = re.sub(r"\\\n\s*", "", text)
    return re.findall(r"^ {4,}(retinart [^#\n]*[^#\s])", whole, re.MULTILINE)


def wanted(line: str) -> bool:
    return not any(part in f"{line} " for part in CANNOT)


def commands_of(text: str) -> list[str]:
    return [line for line in blocks(text) if wanted(line)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name, where the commands run."""
    made = make_scenes(tmp_path / "made", num=PICTURES, seed=4)
    for name in ("val", "train_images"):
        shutil.copytree(made.parent / "images", tmp_path / name)
    shutil.copy(made, tmp_path / "val.json")
    checkpoint = ROOT / "train" / "assets" / "tiny.pt"
    shutil.copy(checkpoint, tmp_path / "retinanet.pth")
    write_video(tmp_path / "video.mp4", frames=4)
    write_video(tmp_path / "clip.mp4", frames=4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Command = Callable[..., CompletedProcess[str]]


def run_all(retinart: Command, lines: list[str]) -> None:
    for line in lines:
        for large, small in SMALL.items():
            line = line.replace(large, small)
        words = shlex.split(line)[1:]
        done = retinart(*words)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_getting_started(retinart: Command, data: Path) -> None:
    (data / "train").mkdir()
    (data / "train" / "assets").symlink_to(ROOT / "train" / "assets")
    text = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    lines = commands_of(text)
    assert len(lines) == 9
    run_all(retinart, lines)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/getting-started.md", "exec"), {})


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("README.md", 6),
        ("docs/how-to/checkpoint.md", 5),
        ("docs/how-to/video.md", 2),
        ("docs/how-to/many-machines.md", 2),
    ],
)
def test_page(retinart: Command, data: Path, page: str, count: int) -> None:
    (data / "train_images").rename(data / "train")
    (data / "names.txt").write_text("disc\nsquare\ntriangle\nstar\nring\ncross\n")
    text = (ROOT / page).read_text("utf-8")
    lines = commands_of(text)
    assert len(lines) == count, lines
    if page == "docs/how-to/video.md":
        run_all(retinart, ["retinart export retinanet.pth -o model.onnx --height 96 --width 128"])
    run_all(retinart, lines)


def test_ci_gate(retinart: Command, data: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "ci-gate.md").read_text("utf-8")
    lines = commands_of(text)
    assert len(lines) == 3
    for name in ("model", "production"):
        small = f"{name}.onnx --height 96 --width 128 --skip-tensorrt"
        run_all(retinart, [f"retinart export retinanet.pth -o {small}"])
    run_all(retinart, ["retinart benchmark model.onnx --images val --out last"])
    *certain, speed = lines
    run_all(retinart, certain)
    done = retinart(*shlex.split(speed)[1:])
    assert done.returncode in (0, 1), done.stderr  # this machine is not quiet
