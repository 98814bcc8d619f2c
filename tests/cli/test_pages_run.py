"""The commands of the pages that a new user follows, run in order, on small data."""

from __future__ import annotations

import json
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
# A page's words, and what stands for them here.
SMALL = {
    "my/images": "val",
    "my/": "",
    "val2017": "val",
    "--eval-images val --max-drop 0.5": "--eval-images val",
    "--eval-images val --max-drop 0.3": "--eval-images val",
    "--annotations val.json --max-drop 0.5": "--annotations val.json",
    "--calibration-images DIR": f"--calibration-images val --calibration-num {PICTURES}",
    "--out DIR": "--out runs/curve --repeats 2",
    "--imgsz 400 500 600 700 800": "--imgsz 64 96",
    "--imgsz 600": "--imgsz 128",
    "--imgsz 800": "--imgsz 128",
    "--batch 8 --epochs 90 --eval-every 15": "--batch 2 --epochs 1",
    "-o tuned.onnx": "-o tuned.onnx --height 96 --width 128",  # as the small model.onnx
    "--epochs 3": "--epochs 1 --batch 2",
    "--model resnet18": "--model tiny",
    "--start 2 --end 5": "--start 0 --end 3f",
    "train2017": "train",
    "-o model.fp16.onnx": f"-o model.fp16.onnx --num {PICTURES}",
    "instances_val.json": "val.json",
    "DIR": "val",
    "FILE": "val.json",
    "CHECKPOINT": "retinanet.pth",
    "CKPT...": "retinanet.pth",
    "COMMAND": "detect",
    "car,person": "disc,square",
    "car=": "disc=",
    "~/.local/share/bash-completion/completions/": "",
    "~/.zfunc/": "",
}

# Parts of lines that cannot run here, and the reason.
CANNOT = {
    "pip ": "installs",
    "git ": "has no address",
    "retinart doctor": "has tests of its own",
    "retinart demo": "has tests of its own",
    "make ": "has tests of its own",
    "rtsp://": "needs a camera",
    "http://127.0.0.1:8081/": "needs a camera's stand-in; tests/containers has one",
    " 0 ": "needs a webcam",
    "detect model.engine": "needs a GPU",
    "check model.engine": "needs a GPU",
    "a100.engine": "needs engines of two GPUs",
    "t4.engine": "needs an engine",
    "--device cuda": "needs a GPU",
    "inspect model.engine --layers": "needs a GPU",
    "HEAD:6379": "needs a cluster; tests/engine/cluster has one of two nodes",
    "--peers": "needs torchvision; tests/benchmarks/peers runs the peers",
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
    for name in ("val", "train"):
        shutil.copytree(made.parent / "images", tmp_path / name)
        shutil.copy(made, tmp_path / f"{name}.json")
    checkpoint = ROOT / "train" / "assets" / "tiny.pt"
    for name in ("retinanet.pth", "best.pt"):
        shutil.copy(checkpoint, tmp_path / name)
    write_other_forms(tmp_path)
    (tmp_path / "names.txt").write_text("disc\nsquare\ntriangle\nstar\nring\ncross\n")
    areas = {"size": [4, 4], "regions": [{"name": "road", "points": [[0, 1], [4, 1], [4, 4]]}]}
    (tmp_path / "areas.json").write_text(json.dumps(areas))
    areas = {"size": [4, 4], "lines": [{"name": "gate", "start": [2, 4], "end": [2, 0]}]}
    (tmp_path / "gates.json").write_text(json.dumps(areas))
    write_video(tmp_path / "video.mp4", frames=4)
    write_video(tmp_path / "clip.mp4", frames=4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_other_forms(folder: Path) -> None:
    """The annotations of `val` as YOLO's set/ and as Pascal VOC's JPEGImages and Annotations."""
    coco = json.loads((folder / "val.json").read_text())
    names = [category["name"] for category in coco["categories"]]
    shutil.copytree(folder / "val", folder / "set" / "images" / "val")
    shutil.copytree(folder / "val", folder / "JPEGImages")
    (labels := folder / "set" / "labels" / "val").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "set" / "data.yaml").write_text(json.dumps({"names": names}))  # JSON is YAML
    for image in coco["images"]:
        rows, objects = [], []
        for entry in coco["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, w, h = entry["bbox"]
                index = [c["id"] for c in coco["categories"]].index(entry["category_id"])
                width, height = image["width"], image["height"]
                shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                rows.append(" ".join(map(str, (index, *shares))))
                corners = zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h), strict=True)
                box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
                objects.append(
                    f"<object><name>{names[index]}</name><bndbox>{box}</bndbox></object>"
                )
        stem = Path(image["file_name"]).stem
        (labels / f"{stem}.txt").write_text("\n".join(rows))
        name = f"<filename>{image['file_name']}</filename>"
        (folder / "Annotations" / f"{stem}.xml").write_text(
            f"<annotation>{name}{''.join(objects)}</annotation>"
        )


Command = Callable[..., CompletedProcess[str]]


def run_all(retinart: Command, lines: list[str]) -> None:
    for line in lines:
        for large, small in SMALL.items():
            line = line.replace(large, small)
        if line.startswith("retinart calibrate") and "--images" in line and "--num" not in line:
            line += f" --num {PICTURES}"
        words = shlex.split(line.partition(" > ")[0])[1:]
        done = retinart(*words)
        # Four pictures decide no gate, and this machine is not quiet.
        gate = any(o in line for o in ("--max-drop", "--max-recall-drop", "--max-ratio"))
        assert done.returncode in ((0, 1) if gate else (0,)), f"{line}\n{done.stderr}"


def test_getting_started(retinart: Command, data: Path) -> None:
    (data / "train" / "assets").symlink_to(ROOT / "train" / "assets")
    text = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    lines = commands_of(text)
    assert len(lines) >= 9
    run_all(retinart, lines)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/getting-started.md", "exec"), {})


# The pages, and how many of their commands run here at least.
PAGES = {
    "README.md": 7,
    "docs/accuracy.md": 3,
    "docs/annotations.md": 2,
    "docs/benchmarks.md": 1,
    "docs/checkpoints.md": 5,
    "docs/command-line.md": 5,
    "docs/deployment.md": 5,
    "docs/kserve.md": 1,
    "docs/ray.md": 2,
    "docs/quantization.md": 1,
    "docs/quantization-calibrate.md": 6,
    "docs/quantization-float.md": 6,
    "docs/self-test.md": 3,
    "docs/tensorrt.md": 1,
    "docs/training.md": 3,
    "docs/video.md": 3,
    "docs/video-events.md": 5,
    "docs/video-keep.md": 7,
    "docs/video-live.md": 4,
    "docs/winograd.md": 1,
    "docs/how-to/checkpoint.md": 5,
    "docs/how-to/ci-gate.md": 3,
    "docs/how-to/gpu.md": 3,
    "docs/how-to/many-machines.md": 2,
    "docs/how-to/video.md": 2,
}


@pytest.mark.parametrize("page", PAGES)
def test_page(retinart: Command, data: Path, page: str) -> None:
    lines = commands_of((ROOT / page).read_text("utf-8"))
    assert len(lines) >= PAGES[page], lines
    for name in ("model", "production"):
        small = f"{name}.onnx --height 96 --width 128 --skip-tensorrt"
        run_all(retinart, [f"retinart export retinanet.pth -o {small}"])
    made = "retinart calibrate model.onnx --images train -o model.int8.onnx --num 4"
    run_all(retinart, [made])
    run_all(retinart, lines)


@pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning")
def test_program_of_ray(retinart: Command, data: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    run_all(retinart, ["retinart export retinanet.pth -o model.onnx --height 96 --width 128"])
    text = (ROOT / "docs" / "ray.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (data / "val").rename(data / "pictures")
    ray.init(address="local", num_cpus=2, include_dashboard=False, ignore_reinit_error=True)
    try:
        exec(compile(code, "docs/ray.md", "exec"), {})
    finally:
        ray.shutdown()
    rows = [line for file in (data / "found.json").iterdir() for line in file.open()]
    assert len(rows) == PICTURES
    assert list((data / "found").glob("*.parquet"))


def test_each_page_with_commands_is_here() -> None:
    """The pages of benchmarks/results tell what was typed on the machine that measured."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = {str(p.relative_to(ROOT)) for p in pages if commands_of(p.read_text("utf-8"))}
    assert named == {*PAGES, "docs/getting-started.md"}
