"""Every hostile file of ../shared/hostile ends with an exit code and a message of ours.

Files of the same kinds that need no shared data stand in the tests of each door: pickles and
checkpoints in tests/train/model, model files in tests/engine/model, text and JSON in
tests/engine/common.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import onnx
import pytest

from made_pictures import png
from retinart.benchmarks.timing.steps import Steps
from retinart.engine.model.info import METADATA_KEY

Command = Callable[..., CompletedProcess[str]]
CODES = (0, 1, 2, 3)
_SECONDS = 10.0
_KIB = 1 << 20


@pytest.fixture
def hostile(shared: Callable[..., Path]) -> Path:
    return shared("hostile")


@pytest.fixture
def retinart(retinart: Command) -> Iterator[Command]:
    """Runs a command within bounds: 10 s of CPU, 1 GiB, and a minute by the clock.

    CPU time is asserted, and not time by the clock, which other programs lengthen.
    """

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    def run(*arguments: str | Path) -> CompletedProcess[str]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at the present memory
        before, start = _status("VmRSS"), time.process_time()
        signal.alarm(60)
        try:
            ran = retinart(*arguments)
        finally:
            signal.alarm(0)
        assert time.process_time() - start < _SECONDS, arguments
        assert _status("VmHWM") - before < _KIB, arguments
        return ran

    old = signal.signal(signal.SIGALRM, stop)
    yield run
    signal.signal(signal.SIGALRM, old)


def _status(key: str) -> int:
    """A size of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def _refused(ran: CompletedProcess[str], path: Path) -> None:
    """It ended with 2, a message that names the file, and what to do."""
    assert ran.returncode == 2, ran.stderr
    assert path.name in ran.stderr and ran.stderr.count(". ") >= 1, ran.stderr


@pytest.mark.parametrize(
    "name",
    [
        "memo-2-28.pkl", "bytes-8GiB.pkl", "laughs.pkl", "laughs-classes.pt", "wide-network.pt",
        "half-stride-0.pt", "damaged-zip.pt", "state-int-key.pt",
    ],
)  # fmt: skip
def test_checkpoints(name: str, hostile: Path, retinart: Command, tmp_path: Path) -> None:
    _refused(retinart("export", hostile / name, "-o", tmp_path / "m.onnx"), hostile / name)


@pytest.mark.parametrize("command", ["inspect", "detect", "convert", "check"])
def test_models(
    command: str, hostile: Path, retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    paths = [hostile / "conv-without-inputs.onnx", hostile / "inspect-provenance.onnx"]
    for meta in sorted(hostile.glob("meta-*.json")):
        model = onnx.load(model_path)
        onnx.helper.set_model_props(model, {METADATA_KEY: meta.read_text()})
        paths.append(tmp_path / f"{meta.stem}.onnx")
        onnx.save(model, paths[-1])
    more = {"detect": [images, "--out", tmp_path / "out"], "convert": ["-o", tmp_path / "x.onnx"]}
    for path in paths:
        _refused(retinart(command, path, *more.get(command, [])), path)
    assert len(paths) > 6


@pytest.mark.parametrize("command", ["inspect", "detect"])
def test_engines(
    command: str, hostile: Path, retinart: Command, model_path: Path, images: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "x.engine"
    shutil.copyfile(model_path, engine)
    for beside in sorted(hostile.glob("engine-*.json")):
        shutil.copyfile(beside, tmp_path / "x.engine.json")
        _refused(retinart(command, engine, *([images] if command == "detect" else [])), engine)


@pytest.mark.parametrize("name", ["half.json", "deep.json"])
def test_state_of_stopped_jobs(
    name: str,
    hostile: Path,
    retinart: Command,
    model_path: Path,
    small_scenes: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = tmp_path / "done.json"
    shutil.copyfile(hostile / name, done)
    assert Steps(done, job="curve").all == {}
    assert "done.json cannot be used" in capfd.readouterr().err
    assert (tmp_path / "done.json.broken").read_bytes() == (hostile / name).read_bytes()

    shutil.copyfile(hostile / name, tmp_path / ".q.calibrating.json")
    ran = retinart(
        "calibrate", model_path, "--images", small_scenes, "--num", "2", "-o", tmp_path / "q.onnx"
    )
    assert ran.returncode == 0 and ".q.calibrating.json cannot be used" in ran.stderr
    assert (tmp_path / ".q.calibrating.json.broken").exists()

    _refused(
        retinart("calibrate", model_path, "--record", hostile / name, "-o", tmp_path / "r.onnx"),
        hostile / name,
    )
    shutil.copyfile(hostile / name, tmp_path / "config.json")
    _refused(retinart("train", "--resume", tmp_path), tmp_path / "config.json")


@pytest.mark.parametrize("name", ["half.json", "deep.json"])
def test_a_benchmark_to_compare_with(
    name: str, hostile: Path, retinart: Command, model_path: Path, small_scenes: Path
) -> None:
    compare = ("benchmark", model_path, "--images", small_scenes, "--compare", hostile / name)
    _refused(retinart(*compare), hostile / name)


def test_a_grey_picture_of_900_megapixels(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    """All of its pixels are there, in less than a MiB."""
    row, packer = bytes(30_001), zlib.compressobj()
    data = b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush()
    path = tmp_path / "grey.png"
    path.write_bytes(png(30_000, 30_000, 8, 0, (b"IDAT", data)))
    assert path.stat().st_size < 1 << 20
    _refused(retinart("detect", model_path, path), path)


def _made(script: Path, folder: Path) -> Path:
    """What a script of the shared folder writes into the working folder."""
    subprocess.run([sys.executable, script], cwd=folder, check=True)
    return next(path for path in folder.iterdir() if path.is_file())


def test_coco_files(hostile: Path, retinart: Command, small_scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    paths = [*sorted(hostile.glob("coco-*.json")), _made(hostile / "coco-100000-boxes.py", folder)]
    for path in paths:
        name = json.loads(path.read_text())["images"][0]["file_name"]
        shutil.copyfile(min(small_scenes.iterdir()), tmp_path / name)
        ran = retinart("data", "check", "--images", tmp_path, "--annotations", path)
        assert ran.returncode in CODES and ran.stderr + ran.stdout, ran


def test_100_000_class_names(hostile: Path, retinart: Command, tmp_path: Path) -> None:
    names = _made(hostile / "names-100000.py", tmp_path)
    checkpoint = hostile / "state-int-key.pt"
    ran = retinart("export", checkpoint, "--classes", names, "-o", tmp_path / "m.onnx")
    assert ran.returncode == 2 and "state-int-key.pt" in ran.stderr  # the names were read


@pytest.mark.parametrize("kind", ["a device", "a named pipe"])
def test_devices_and_pipes_are_no_files(
    kind: str, retinart: Command, model_path: Path, small_scenes: Path, tmp_path: Path
) -> None:
    path = Path("/dev/zero") if kind == "a device" else tmp_path / "pipe"
    if kind == "a named pipe":
        os.mkfifo(path)
    out = tmp_path / "m.onnx"
    for arguments in (
        ("export", path, "-o", out),
        ("export", model_path, "--classes", path, "-o", out),
        ("inspect", path),
        ("detect", path, small_scenes),
        ("calibrate", model_path, "--record", path, "-o", out),
        ("eval", model_path, "--images", small_scenes, "--annotations", path),
        ("data", "check", "--images", small_scenes, "--annotations", path),
    ):
        ran = retinart(*arguments)
        assert ran.returncode in (1, 2) and path.name in ran.stderr + ran.stdout, ran
