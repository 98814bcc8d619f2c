"""The script that verifies on a GPU: its CPU's part, and its GPU's part up to the first call."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from fake_builder import GPU
from retinart.benchmarks.grid.steps import random_checkpoint
from retinart.benchmarks.timing.worker import Incomplete, Lost
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.cuda.open_gpu import installed_bindings
from retinart.engine.errors import BadInput
from retinart.engine.model.info import CANDIDATES, INPUT, Thresholds, read_info
from retinart.engine.tensorrt.api import installed
from retinart.export.settings import ExportSettings
from retinart.verify import __main__ as program
from retinart.verify import checks, prepare, run_checks
from retinart.verify.attempts import NO_TIME, Attempts
from retinart.verify.bundle import Bundle, Item, read_bundle, split
from retinart.verify.cuda_checks import CHECKS
from retinart.verify.prepare import PRECISIONS
from support import export_unchecked, make_picture

# The first one, and the one that goes through each conversion.
MADE = (PRECISIONS[0], "int8+fp16")
# of engines, and of the group "cuda"
SKIPPED = 19 + ((len(CHECKS) + len(run_checks.RUNNER)) * len(installed_bindings()) or 1)


@pytest.fixture(scope="module")
def prepared(
    noisy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """The arguments of the CPU's part, and the folder that it fills."""
    if find_gpus() or not installed("tensorrt-rtx"):
        pytest.skip("this is about a machine without a GPU, with TensorRT-RTX")
    root = tmp_path_factory.mktemp("verify")
    (images := root / "images").mkdir()
    for i in range(3):
        cv2.imwrite(str(images / f"{i}.png"), make_picture(i))
    out, folder, models = root / "result.json", root / "prepared", root / "models"
    arguments = ["--checkpoint", noisy_checkpoint, "--images", images, "--models", models]
    arguments += ["--prepare", folder]
    arguments += ["--imgsz", "64", "--num-images", "2", "--out", out, "--backbones"]
    arguments += ["--precisions", *MADE]
    return [str(a) for a in arguments], folder


def test_the_cpus_part_is_made_once(
    prepared: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, folder = prepared
    out = folder.parent / "result.json"
    assert program.main(arguments) == 0
    results = json.loads(out.read_text())["steps"]
    states = {name: step["state"] for name, step in results.items()}
    assert states["environment"] == "done" and "FAILED" not in states.values()
    for precision in MADE:
        title = f"given at 64, {precision}"
        assert states[f"build {title}"] == states[f"reference of {title} by openvino"] == "done"
    assert results["build given at 64, fp16"]["on"] == "a CPU"
    said = capsys.readouterr().out
    assert "0 failed, 0 skipped" in said and "detections on 2 images" in said

    assert program.main(arguments) == 0  # nothing is done twice
    assert json.loads(out.read_text())["steps"] == results
    again = capsys.readouterr().out
    assert "0 failed, 0 skipped" in again
    assert "build given" not in again and "reference" not in again
    assert program.main([*arguments, "--num-images", "1"]) == 2
    assert "was made from another images" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["--cuda", "--run there", "--checkpoint c.pth --images i"])
def test_without_a_gpu_it_ends_at_once(
    wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It worked for minutes, and printed "there is no GPU here" for each of 16 steps."""
    monkeypatch.setattr(program, "find_gpus", list)
    assert program.main(wanted.split()) == 3
    assert capsys.readouterr() == (
        "",
        "error: there is no NVIDIA GPU here: no driver lists one. Run this where one is. Only the "
        "CPU's part can run here: python -m retinart.verify --checkpoint CKPT.pth --images DIR "
        "--prepare FOLDER.\n",
    )


def test_the_gpus_part_needs_neither_onnx_nor_openvino(
    prepared: tuple[list[str], Path], tmp_path: Path
) -> None:
    """It takes the folder as it came, in packs, on a machine that lacks what the other one has."""
    folder = prepared[1]
    if not folder.is_dir():
        program.main(prepared[0])
    (copy := tmp_path / "up").mkdir()
    for path in folder.iterdir():
        shutil.copyfile(path, copy / path.name)
    packs = split(copy, 3 << 20)
    assert len(packs) > 2 and not split(copy, 1 << 30)[1:]  # none of the earlier ones stays
    packs = split(copy, 3 << 20)
    (there := tmp_path / "there").mkdir()
    for pack in packs:
        assert sum(f.stat().st_size for f in pack.iterdir()) <= 3 << 20
        for path in pack.iterdir():
            shutil.copyfile(path, there / path.name)
        if pack == packs[0]:  # the first engine's first part: not to be taken for the whole
            read_bundle(there)
            assert list(there.glob("*.part000")) and not list(there.glob("*.engine"))
    code = (
        "import sys\n"
        "for name in ('onnx', 'openvino', 'tensorrt_rtx'): sys.modules[name] = None\n"
        "from retinart.engine.cuda.devices import Gpu\n"
        "from retinart.verify import __main__ as program\n"
        "class Attempts(program.Attempts):\n"
        "    def run(self, name, work, limit=None): self.skip(name, 'only a GPU can')\n"
        "program.Attempts = Attempts\n"
        "gpu = Gpu(index=0, name='made up', compute_capability='8.9', cuda='13.0')\n"
        "program.find_gpus = lambda: [gpu]\n"
        "sys.exit(program.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--run", str(there), "--out", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (3, "")
    assert f"0 failed, {SKIPPED} skipped" in done.stdout
    for path in folder.iterdir():  # flat
        assert (there / path.name).read_bytes() == path.read_bytes()
    bundle = read_bundle(there)
    assert bundle.items[0].precision == "fp16" and len(bundle.images) == 2


def test_what_is_missing_is_said(
    noisy_checkpoint: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_onnx(_: str) -> str:
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setattr(prepare, "runtime_version", no_onnx)
    arguments = ["--checkpoint", str(noisy_checkpoint), "--images", str(images)]
    assert program.main([*arguments, "--prepare", str(tmp_path / "up")]) == 3
    assert "not installed here: No module named 'onnx'" in capsys.readouterr().err
    assert program.main(["--images", "x", "--prepare", str(tmp_path / "up")]) == 2
    assert "a checkpoint and images are needed" in capsys.readouterr().err
    monkeypatch.setattr(program, "find_gpus", lambda: [GPU])
    monkeypatch.setattr(program, "run_cuda", lambda *_, **__: None)
    assert program.main(["--run", str(tmp_path)]) == 2
    assert "bring all of its packs" in capsys.readouterr().err


def fail(error: BaseException) -> None:
    raise error


def test_how_a_step_went_is_kept_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Attempts()
    parts = {"no graph": {"ms": 1}, "graph": "CudaError: 900"}
    for name, work, state, result in (
        ("good", lambda: {"ms": 1}, "done", {"ms": 1}),
        ("bad", lambda: 1 / 0, "FAILED", "ZeroDivisionError: division by zero"),
        ("lost", partial(fail, Lost("it died")), "FAILED", "it died"),
        ("in part", partial(fail, Incomplete(parts)), "FAILED", parts),
        ("missing", partial(fail, ImportError("no pycuda")), "skipped", "no pycuda"),
    ):
        steps.run(name, work)
        assert (steps.all[name].state, steps.all[name].result) == (state, result), name
    steps.skip("later", "no GPU")
    assert [steps.count(s) for s in ("done", "FAILED", "skipped")] == [1, 3, 2]
    assert "FAILED" in (said := capsys.readouterr().out) and "ZeroDivisionError" in said


def test_steps_are_written_as_they_end_and_a_later_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first, ran = Attempts(out), list[str]()
    for name in ("one", "two"):
        first.run(name, partial(str, name))
    first.run("three", lambda: 1 / 0)
    with pytest.raises(KeyboardInterrupt):
        first.run("four", partial(fail, KeyboardInterrupt()))
    found = json.loads(out.read_text())["steps"]
    assert [found[k]["state"] for k in found] == ["done", "done", "FAILED"]

    later = Attempts(out, on="a GPU")
    assert [later.over(n) for n in ("one", "three", "four")] == [True, True, False]
    for name in ("two", "three", "four"):
        later.run(name, partial(ran.append, name))
    assert ran == ["four"] and later.good("two") and not later.good("three")
    assert (later.all["four"].on, later.all["two"].on) == ("a GPU", "")
    Attempts(out, retry=True).run("three", partial(ran.append, "three"))
    assert ran == ["four", "three"]
    later.same("of", {"checkpoint": "1", "code": "2"})
    later.same("of", {"code": "2", "checkpoint": "1"})
    with pytest.raises(BadInput, match="is of another code"):
        Attempts(out).same("of", {"checkpoint": "1", "code": "3"})
    late = Attempts(out, seconds=-1)
    late.run("six", lambda: 6)
    assert late.all["six"].result == NO_TIME
    out.write_text("[1]")
    assert not Attempts(out).all  # it blocks nothing, and is set aside
    assert Path(f"{out}.broken").read_text() == "[1]"


def test_what_tells_the_most_comes_first(tmp_path: Path) -> None:
    items = list[Item]()
    for title in ("given at 800, fp16", "given at 800, int8", "resnet50 at 800, fp16"):
        items.append(
            Item(
                title=title,
                trained=title.startswith("given"),
                precision="fp16",
                engine=(name := f"{len(items)}.engine"),
                nms="plugin",
                native="",
                references={},
            )
        )
        if len(items) < 3:
            (tmp_path / name).touch()
            (tmp_path / f"{name}.json").touch()
    limits = dict[str, float | None]()

    def call(work: Any, limit: float | None) -> Any:
        check, (subject,) = work.func, work.args
        limits[f"{check.__name__} {subject.engine.name}"] = limit
        if check is checks.load_and_run and subject.engine.name == "1.engine":
            raise Lost("cudaErrorNoKernelImageForDevice")

    steps = Attempts(call=call)
    bundle = Bundle(of={}, images=("a.png",), items=tuple(items))
    run_checks.run_checks(tmp_path, bundle, steps, {"frames": 1}, limit=None)
    assert list(limits)[:4] == [
        f"{name} {n}.engine" for n in (0, 1) for name in ("validity", "load_and_run")
    ]
    assert list(limits)[4:] == [
        *(f"{name} 0.engine" for name in ("compare", "latency", "gpu_resize", "threads")),
        *(f"{name} 0.engine" for name in ("torch_compile", "throughput", "streams", "endurance")),
    ]
    assert limits["load_and_run 0.engine"] == 120 and limits["torch_compile 0.engine"] == 600
    assert steps.all["detections, given at 800, int8"].result == run_checks.NOT_SEEN
    assert steps.all["latency, resnet50 at 800, fp16"].result == run_checks.NOT_HERE


def test_random_weights_give_nms_work(tmp_path: Path) -> None:
    """NMS takes the longer the more pairs pass the threshold; with none it would be left out.

    At 400 there are 1,000 of 3,747 candidates.
    """
    path = tmp_path / "random.pth"
    random_checkpoint(path, "resnet18", 4, make_picture(1))
    settings = ExportSettings(imgsz=160, tensorrt=False)
    model = onnx.load(export_unchecked(path, tmp_path / "random.onnx", settings, self_test=False))
    model.graph.output.append(helper.make_empty_tensor_value_info(CANDIDATES[1]))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    frames, _ = read_info(tmp_path / "random.onnx").resize.apply([make_picture(1)])
    (scores,) = session.run([CANDIDATES[1]], {INPUT: frames})
    assert 100 < np.sum(scores > Thresholds().score_thresh) < 1000 < scores.size
