"""The script that verifies on a GPU runs on a CPU as far as its first call of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest

from retinart.benchmarks.gpu import checks, models, see, verify
from retinart.benchmarks.gpu.bundle import (
    Bundle,
    Item,
    split,
)
from retinart.benchmarks.gpu.models import PRECISIONS
from retinart.benchmarks.gpu.see import LIMITS
from retinart.benchmarks.gpu.steps import NO_TIME, Steps
from retinart.benchmarks.timing.isolated import Incomplete, Lost, Worker
from retinart.engine.cuda.devices import find_gpus
from retinart.engine.errors import BadInput
from retinart.engine.tensorrt.api import installed
from support import make_picture


@pytest.fixture(scope="module")
def prepared(
    noisy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """The one command's arguments, and the folder that its CPU's part filled."""
    if find_gpus() or not installed("tensorrt-rtx"):
        pytest.skip("this is about a machine without a GPU, with TensorRT-RTX")
    root = tmp_path_factory.mktemp("verify")
    (images := root / "images").mkdir()
    for i in range(3):
        cv2.imwrite(str(images / f"{i}.png"), make_picture(i))
    out, models = root / "result.json", root / "models"
    arguments = ["--checkpoint", noisy_checkpoint, "--images", images, "--models", models]
    arguments += ["--imgsz", "96", "--num-images", "2", "--out", out, "--backbones"]
    return [str(a) for a in arguments], models / "prepared"


def test_it_runs_to_the_first_call_of_a_gpu(
    prepared: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, folder = prepared
    out = folder.parent.parent / "result.json"
    assert verify.main(arguments) == 3
    results = json.loads(out.read_text())
    states = {name: step["state"] for name, step in results.items()}
    assert states["environment"] == "done" and "FAILED" not in states.values()
    for precision in PRECISIONS:
        title = f"given at 96, {precision}"
        assert states[f"build {title}"] == states[f"reference of {title} by openvino"] == "done"
        for kind in set(LIMITS) - {"native NMS", "torch.compile FP16"}:
            assert results[f"{kind}, {title}"]["result"] == see.NO_GPU
    assert states["torch.compile FP16, given at 96"] == "skipped"
    assert results["build given at 96, fp16"]["on"] == "a CPU"
    said = capsys.readouterr().out
    assert "0 failed, 37 skipped" in said and "detections on 2 images" in said

    assert verify.main(arguments) == 3  # nothing is done twice
    assert json.loads(out.read_text()) == results
    again = capsys.readouterr().out
    assert "0 failed, 37 skipped" in again and "build" not in again and "reference" not in again
    assert verify.main([*arguments, "--num-images", "1"]) == 2
    assert "was made from another images" in capsys.readouterr().err


def test_the_gpus_part_needs_neither_onnx_nor_openvino(
    prepared: tuple[list[str], Path], tmp_path: Path
) -> None:
    """It takes the folder as it came, in packs, on a machine that lacks what the other one has."""
    folder = prepared[1]
    if not folder.is_dir():
        verify.main(prepared[0])
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
            Bundle.load(there)
            assert list(there.glob("*.part000")) and not list(there.glob("*.engine"))
    code = (
        "import sys\n"
        "for name in ('onnx', 'openvino', 'tensorrt_rtx'): sys.modules[name] = None\n"
        "from retinart.benchmarks.gpu import verify\n"
        "sys.exit(verify.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--run", str(there), "--out", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (3, "")
    assert "0 failed, 37 skipped" in done.stdout
    for path in folder.iterdir():  # flat
        assert (there / path.name).read_bytes() == path.read_bytes()
    bundle = Bundle.load(there)
    assert bundle.items[0].precision == "fp16" and len(bundle.read_images()) == 2


def test_what_is_missing_is_said(
    noisy_checkpoint: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_onnx(_: str) -> str:
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setattr(models, "runtime_version", no_onnx)
    arguments = ["--checkpoint", str(noisy_checkpoint), "--images", str(images)]
    assert verify.main([*arguments, "--prepare", str(tmp_path / "up")]) == 3
    assert "not installed here: No module named 'onnx'" in capsys.readouterr().err
    assert verify.main(["--images", "x"]) == verify.main(["--run", str(tmp_path)]) == 2
    assert "bring all of its packs" in capsys.readouterr().err
    worker = Worker(30)
    steps = Steps(call=worker.call)
    steps.run("later", partial(exec, "import a_module_that_is_not_there"))
    worker.close()
    assert steps.results["later"]["state"] == "skipped"
    assert "a_module_that_is_not_there" in steps.results["later"]["result"]


def test_a_step_that_fails_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    assert steps.run("good", lambda: {"ms": 1}) == {"ms": 1}
    assert steps.run("bad", lambda: 1 / 0) is None
    steps.skip("later", "no GPU")
    assert [steps.count(s) for s in ("done", "FAILED", "skipped")] == [1, 1, 1]
    assert "FAILED" in (said := capsys.readouterr().out) and "ZeroDivisionError" in said


def interrupt() -> None:
    raise KeyboardInterrupt


# Work whose graph failed; a worker's process cannot import this module, as tests are no package.
incomplete_work = partial(
    exec,
    "from retinart.benchmarks.timing.isolated import Incomplete\n"
    "raise Incomplete({'no graph': {'ms': 1}, 'graph': 'CudaError: 900'})",
    {},
)


def test_results_are_written_after_every_step_and_a_later_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    first, ran = Steps(out), list[str]()
    first.run("one", lambda: 1)
    first.run("two", lambda: 2)
    first.run("three", lambda: 1 / 0)
    first.run("part", incomplete_work)
    with pytest.raises(KeyboardInterrupt):
        first.run("four", interrupt)
    found = json.loads(out.read_text())
    assert [found[k]["state"] for k in found] == ["done", "done", "FAILED", "FAILED"]
    assert found["part"]["result"] == {"no graph": {"ms": 1}, "graph": "CudaError: 900"}

    later = Steps(out, where="a GPU")
    assert [later.over(n) for n in ("one", "three", "four")] == [True, True, False]
    for name in ("two", "three", "four"):
        later.run(name, partial(ran.append, name))
    assert ran == ["four"] and later.good("two") and not later.good("three")
    assert later.results["four"]["on"] == "a GPU" and "on" not in later.results["two"]
    Steps(out, retry=True).run("three", partial(ran.append, "three"))
    assert ran == ["four", "three"]
    later.same("of", {"checkpoint": 1, "code": 2})
    later.same("of", {"code": 2, "checkpoint": 1})
    with pytest.raises(BadInput, match="is of another code"):
        Steps(out).same("of", {"checkpoint": 1, "code": 3})
    late = Steps(out, seconds=-1)
    assert late.run("six", lambda: 6) is None
    assert late.results["six"]["result"] == NO_TIME
    out.write_text("[1]")
    with pytest.raises(BadInput, match="no file of this script's"):
        Steps(out)


def test_a_worker_outlives_what_it_does() -> None:
    worker = Worker(30)
    try:
        first = worker.call(os.getpid)
        assert first == worker.call(os.getpid) != os.getpid()
        with pytest.raises(Lost, match="its process died with exit code -11"):
            worker.call(partial(os.kill, first, 11)) or worker.call(os.getpid)
        with pytest.raises(Lost, match="ValueError: invalid literal"):
            worker.call(partial(int, "x"))
        assert worker.call(os.getpid) != first
        with pytest.raises(Incomplete) as caught:
            worker.call(incomplete_work)
        assert caught.value.figures["graph"] == "CudaError: 900"
    finally:
        worker.close()
    short = Worker(0.5)
    with pytest.raises(Lost, match=r"stopped after 0\.5 s"):
        short.call(partial(time.sleep, 60))
    with pytest.raises(Lost, match=r"stopped after 0\.2 s"):
        short.call(partial(time.sleep, 60), 0.2)
    short.close()


def test_what_tells_the_most_comes_first(tmp_path: Path) -> None:
    items = list[Item]()
    for title in ("given at 800, fp16", "given at 800, int8", "resnet50 at 800, fp16"):
        items.append(
            Item(
                title=title,
                trained=title.startswith("given"),
                precision="fp16",
                engine=(name := f"{len(items)}.engine"),
                native="",
                references={},
            )
        )
        if len(items) < 3:
            (tmp_path / name).touch()
            (tmp_path / f"{name}.json").touch()
    cv2.imwrite(str(tmp_path / "a.png"), make_picture(0))
    limits = dict[str, float | None]()

    def call(work: Any, limit: float | None) -> Any:
        limits[f"{work.func.__name__} {work.args[0].name}"] = limit
        if work.func is checks.load_and_run and work.args[0].name == "1.engine":
            raise Lost("cudaErrorNoKernelImageForDevice")

    settings = see.SeeSettings(
        gpu=True,
        frames=1,
        seconds=1,
        batches=(1,),
        contexts=(1,),
        compile_mode="default",
        limit=None,
    )
    steps = Steps(call=call)
    see.see(Bundle(folder=tmp_path, of={}, images=("a.png",), items=tuple(items)), steps, settings)
    assert list(limits)[:4] == [
        f"{name} {n}.engine" for n in (0, 1) for name in ("validity", "load_and_run")
    ]
    assert list(limits)[4:] == [
        *(f"{name} 0.engine" for name in ("compare", "latency", "gpu_resize", "threads")),
        *(f"{name} 0.engine" for name in ("torch_compile", "throughput", "streams", "endurance")),
    ]
    assert limits["load_and_run 0.engine"] == 120 and limits["torch_compile 0.engine"] == 600
    assert steps.results["detections, given at 800, int8"]["result"] == see.NOT_SEEN
    assert steps.results["latency, resnet50 at 800, fp16"]["result"] == see.NOT_HERE
