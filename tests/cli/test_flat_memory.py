"""Memory that does not grow with the number of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import run_python

# In a process of its own, so that only these commands decide its peak.
PROGRAM = """
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from retinart.cli import main

SIDE = 1000
noise = cv2.resize(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8), (SIDE, SIDE))
folder, model = Path(sys.argv[1]), sys.argv[2]
picture = cv2.imencode(".jpg", noise)[1].tobytes()


def made(count):
    images = folder / str(count)
    images.mkdir()
    for i in range(count):
        (images / f"{i}.jpg").write_bytes(picture)
    size = {"width": SIDE, "height": SIDE}
    listed = [{"id": i, "file_name": f"{i}.jpg", **size} for i in range(count)]
    box = {"category_id": 1, "bbox": [9, 9, 99, 99]}
    boxes = [{"id": i, "image_id": i, **box} for i in range(count)]
    file = folder / f"{count}.json"
    file.write_text(json.dumps({
        "images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "disc"}],
    }))
    return images, file


def peak_mib(command, count):
    images, file = places[count]
    more = {
        "calibrate": ["--num", count, "-o", folder / "int8.onnx"],
        "eval": ["--annotations", file],
    }
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at the present memory
    assert main([str(w) for w in (command, model, "--images", images, *more[command])]) == 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


counts = (4, 28)
places = {count: made(count) for count in counts}
peaks = {}
for command in ("calibrate", "eval"):
    peak_mib(command, counts[0])
    peaks[command] = [peak_mib(command, count) for count in counts]
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="it is Linux's way")
def test_calibrate_and_eval_hold_a_few_pictures_at_once(model_path: Path, tmp_path: Path) -> None:
    """24 more pictures take 69 MiB decoded."""
    ran = run_python("-c", PROGRAM, str(tmp_path), str(model_path))
    assert ran.returncode == 0, ran.stderr
    for command, (few, many) in json.loads(ran.stdout.splitlines()[-1]).items():
        assert many - few < 25, (command, few, many)
