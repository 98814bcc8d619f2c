"""Detect on pictures through a server: `python client.py http://localhost:8000 picture.jpg`.

It speaks the protocol of KServe (version 2), as Triton, OpenVINO Model Server and KServe do. All it
does to a picture is to resize it, and all it does to a box is to undo that. It needs numpy and
OpenCV, and Pillow for models that resize as Pillow does.
"""

from __future__ import annotations

import json
import math
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np

MODEL: dict[str, Any] = json.loads(Path(__file__).with_name("model.json").read_text("utf-8"))
TYPES = {"INT32": np.int32, "FP32": np.float32}


def resize(image: Any) -> tuple[Any, tuple[int, int]]:
    """A picture (H, W, 3) uint8 BGR at the network's size, and the (height, width) it covers."""
    rule = MODEL["resize"]
    height, width = image.shape[:2]
    canvas, scale = rule["canvas"], math.inf
    if rule["short_side"]:
        scale = rule["short_side"] / min(height, width)
    if rule["max_size"]:
        scale = min(scale, rule["max_size"] / max(height, width))
    if canvas:
        scale = min(scale, canvas[0] / height, canvas[1] / width)
    add = {"floor": 1e-6, "float_floor": 0.0, "nearest": 0.5}[rule["size_rounding"]]
    size = max(1, int(height * scale + add)), max(1, int(width * scale + add))
    if not canvas:
        canvas = [-(-side // rule["pad_multiple"]) * rule["pad_multiple"] for side in size]
    frame = np.empty((*canvas, 3), np.uint8)
    frame[:] = rule["pad_value"]
    if rule["interpolation"] == "pillow":
        from PIL import Image

        small = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    elif rule["interpolation"] == "float":
        values = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        small = cv2.convertScaleAbs(values)
    else:
        small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    frame[: size[0], : size[1]] = np.asarray(small)
    return frame, size


def infer(server: str, frames: Any, seconds: float = 30.0) -> dict[str, Any]:
    """The four outputs for frames (N, H, W, 3) uint8 BGR."""
    binary = {"binary_data": True}
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "frames",
                    "shape": list(frames.shape),
                    "datatype": "UINT8",
                    "parameters": {"binary_data_size": frames.nbytes},
                }
            ],
            "outputs": [{"name": name, "parameters": binary} for name in MODEL["outputs"]],
        }
    ).encode()
    request = urllib.request.Request(
        f"{server}/v2/models/{MODEL['name']}/infer",
        head + frames.tobytes(),
        {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        },
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        body = answer.read()
        start = int(answer.headers["Inference-Header-Content-Length"])
    found = {}
    for output in json.loads(body[:start])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        values = np.frombuffer(body[start:end], TYPES[output["datatype"]])
        found[output["name"]] = values.reshape(output["shape"])
        start = end
    return found


def detect(server: str, image: Any) -> list[tuple[str, float, list[float]]]:
    """Class, score and box (x1, y1, x2, y2) in the picture's pixels, the best first."""
    frame, (h, w) = resize(image)
    found = infer(server, frame[None])
    count, boxes, scores, labels = (found[name][0] for name in MODEL["outputs"])
    height, width = image.shape[:2]
    ratio = np.array([width / w, height / h] * 2, np.float32)
    boxes = np.clip(boxes * ratio, 0, np.array([width, height] * 2, np.float32))
    return [
        (MODEL["classes"][labels[i]], float(scores[i]), boxes[i].tolist())
        for i in range(int(count[0]))
        if boxes[i][2] > boxes[i][0] and boxes[i][3] > boxes[i][1]  # not in the padding alone
    ]


def main(server: str, *names: str) -> None:
    """Print a line of JSON for each picture."""
    for name in names:
        picture = cv2.imread(name)
        if picture is None:
            sys.exit(f"cannot read {name}")
        try:
            found = detect(server.rstrip("/"), picture)
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace").strip()
            sys.exit(f"{server} refused the request: {error} {said}")
        except (OSError, ValueError) as error:  # ValueError: no address of a server
            why = getattr(error, "reason", error)
            sys.exit(f"{server} does not answer: {why}. Start the server, or check the address.")
        print(json.dumps({"picture": name, "detections": found}))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python client.py http://localhost:8000 PICTURE...")
    main(*sys.argv[1:])
