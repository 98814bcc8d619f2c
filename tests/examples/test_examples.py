"""The examples run as they stand, on small models, and print what a detector gives."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import openvino
import pytest
import uvicorn

import retinart
from retinart.engine.media.images import read_image
from support import ROOT, make_picture, write_images, write_video

EXAMPLES = ROOT / "examples"
BUT_RAY = sorted(set(EXAMPLES.glob("*.py")) - {EXAMPLES / "ray_serve.py"})  # Ray loads for seconds
LEAST = 0.3  # the score from which on the examples show a detection


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs an example as a program, in this process, and gives the lines that it prints."""

    def program(name: str, *arguments: str | Path) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return program


def sure_of(model: Path, picture: Path) -> retinart.Detections:
    with retinart.Detector(model) as detect:
        found = detect(read_image(picture))
    sure = found[found.confidence >= LEAST]
    assert len(sure) > 1, "the test needs a picture with detections"
    return sure


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_images(tmp_path, "0.png") / "0.png"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_short_and_uses_public_names_only(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text.splitlines()) <= 60
    assert re.findall(r"^(?:from|import) retinart.*$", text, re.MULTILINE) == ["import retinart"]


def test_detect_frame(run: Any, model_path: Path, picture: Path) -> None:
    sure = sure_of(model_path, picture)
    lines = run("detect_frame.py", model_path, picture)
    assert len(lines) == len(sure)
    name = retinart.read_info(model_path).classes[sure.class_id[0]]
    assert lines[0].startswith(f"{name} {sure.confidence[0]:.2f} from (")


@pytest.mark.parametrize("file", BUT_RAY, ids=lambda file: file.stem)
@pytest.mark.parametrize("words", [[], ["a", "b", "c", "d"]], ids=["none", "many"])
def test_wrong_arguments_give_a_usage_line(
    run: Any, file: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETINART_MODEL", raising=False)
    with pytest.raises(SystemExit, match=rf"^usage: .*{file.stem}"):
        run(file.name, *words)


def test_a_model_that_is_missing(run: Any, images: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no model at none\.onnx"):
        run("folder.py", "none.onnx", images)


def test_a_picture_that_is_missing(run: Any, model_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"cannot read none\.png"):
        run("detect_frame.py", model_path, "none.png")


def test_camera(run: Any, model_path: Path, tmp_path: Path) -> None:
    lines = run("camera.py", model_path, write_video(tmp_path / "clip.avi", frames=3))
    assert [line.split(" s ")[0] for line in lines] == ["0.00", "0.10", "0.20"]
    assert any(re.search(r"'(disc|square|ring)': \d", line) for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="webcams have no device files there")
def test_a_camera_that_is_not_there(run: Any, model_path: Path) -> None:
    """OpenCV printed warnings of its own for half a minute."""
    with pytest.raises(SystemExit, match="there is no webcam 97: /dev/video97 does not exist"):
        run("camera.py", model_path, "97")


def test_a_reader_that_has_enough_of_a_folder(
    run: Any, model_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: a traceback after `| head`. Here the reader is gone from the start."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as caught:
            run("folder.py", model_path, images)
    assert caught.value.code == 1


def test_folder(run: Any, model_path: Path, images: Path) -> None:
    found = [json.loads(line) for line in run("folder.py", model_path, images)]
    assert [Path(line["picture"]).name for line in found] == ["0.png", "1.png", "2.png"]
    first = sure_of(model_path, images / "0.png")
    assert len(found[0]["objects"]) == len(first)
    np.testing.assert_allclose(found[0]["objects"][0]["xyxy"], first.xyxy[0], atol=0.1)


def post(address: str, body: bytes) -> tuple[int, Any]:
    headers = {"Content-Type": "image/jpeg"}
    try:
        with urlopen(Request(address, body, headers), timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_service(model_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINART_MODEL", str(model_path))
    app = runpy.run_path(str(EXAMPLES / "service.py"))["app"]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}/detect"
        status, objects = post(address, picture.read_bytes())
        _, fewer = post(f"{address}?least=0.9", picture.read_bytes())
        wrong, _ = post(address, b"no picture")
        with urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert (answer.status, answer.read()) == (200, b'"ok"')
    finally:
        server.should_exit = True
        thread.join()
    sure = sure_of(model_path, picture)
    assert (status, wrong) == (200, 415)
    assert [one["score"] for one in objects] == pytest.approx(sure.confidence.tolist())
    assert len(fewer) == (sure.confidence >= 0.9).sum() < len(sure)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::ray", "ignore::ResourceWarning")
def test_ray_serve(model_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests at once, which share batches."""
    monkeypatch.setenv("RETINART_MODEL", str(model_path))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray", reason="ray is not installed")
    begun = ray.is_initialized()
    ray.init(
        address=None if begun else "local",
        num_cpus=None if begun else 2,
        include_dashboard=False,
        ignore_reinit_error=True,
        log_to_driver=False,
    )
    serve = importlib.import_module("ray.serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        monkeypatch.syspath_prepend(str(EXAMPLES))
        serve.run(importlib.import_module("ray_serve").app)
        address = f"http://127.0.0.1:{port}/"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: post(address, body), [picture.read_bytes()] * 24))
        wrong, _ = post(address, b"no picture")
    finally:
        serve.shutdown()
        if not begun:
            ray.shutdown()
    sure = sure_of(model_path, picture)
    assert wrong == 415
    for status, objects in answers:
        assert status == 200
        assert [one["score"] for one in objects] == pytest.approx(sure.confidence.tolist())


def test_with_supervision(run: Any, model_path: Path, picture: Path, tmp_path: Path) -> None:
    sure = sure_of(model_path, picture)
    x1, y1, x2, y2 = sure.xyxy.T
    large = (x2 - x1) * (y2 - y1) >= 100
    (line,) = run("with_supervision.py", model_path, picture, tmp_path / "out.png")
    assert line.startswith(f"{large.sum()} objects, ")
    assert np.any(read_image(tmp_path / "out.png") != read_image(picture))


def test_cpp(run: Any, model_path: Path, tmp_path: Path) -> None:
    """The wheel of OpenVINO carries headers, libraries and a CMake package."""
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    build, cmake = tmp_path / "build", Path(openvino.__file__).parent / "cmake"
    source = str(EXAMPLES / "cpp")
    configure = ["cmake", "-S", source, "-B", str(build), f"-DOpenVINO_DIR={cmake}"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build], check=True, capture_output=True)

    picture, image = tmp_path / "0.ppm", make_picture(0)
    assert cv2.imwrite(str(picture), image)
    done = subprocess.run(
        [build / "detect", model_path, picture, "0.8"], check=True, capture_output=True, text=True
    )
    rows = np.array([line.split() for line in done.stdout.splitlines()], float)
    with retinart.Detector(model_path, runtime="onnxruntime") as detect:  # NMS in the file, too
        found = detect(image)
    found = found[found.confidence >= 0.8]
    assert 5 < len(found) < 99
    np.testing.assert_array_equal(rows[:, 0], found.class_id)
    np.testing.assert_allclose(rows[:, 1], found.confidence, atol=1e-4)
    np.testing.assert_allclose(rows[:, 2:], found.xyxy, atol=0.05)

    wide = tmp_path / "wide.png"
    assert cv2.imwrite(str(wide), make_picture(0, 90, 180))
    (line,) = run("cpp/fit.py", model_path, wide, picture)
    done = subprocess.run(
        [build / "detect", model_path, picture, "0.8"], check=True, capture_output=True, text=True
    )
    boxes = np.array([row.split()[2:] for row in done.stdout.splitlines()], float)
    with retinart.Detector(model_path, runtime="onnxruntime") as detect:
        found = detect(read_image(wide))
    found = found[found.confidence >= 0.8]
    assert len(found) > 2
    ratio = [float(word) for word in line.split()] * 2
    boxes = np.minimum(boxes / ratio, [180, 90] * 2)
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(axis=1)]  # not in the padding alone
    np.testing.assert_allclose(boxes, found.xyxy, atol=0.1)

    assert cv2.imwrite(str(picture), make_picture(0, 90, 120))
    refused = subprocess.run(
        [build / "detect", model_path, picture], capture_output=True, text=True
    )
    assert (refused.returncode, refused.stderr) == (1, "the picture must be 128x96\n")
