"""Detect on a folder: `python examples/folder.py model.onnx pictures > found.jsonl`.

`throughput=True` computes several pictures at once, which is fastest for files.
"""

from __future__ import annotations

import json
import os
import sys

import retinart

LEAST = 0.3  # the score from which on a detection counts


def main(model: str, folder: str) -> None:
    """Print a line of JSON for each picture."""
    with retinart.Detector(model, throughput=True) as detect:
        for frame, found in detect.stream(folder):
            objects = [
                {"class": detect.classes[class_id], "score": score, "xyxy": box.tolist()}
                for box, score, class_id in found[found.confidence >= LEAST]
            ]
            print(json.dumps({"picture": frame.source, "objects": objects}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/folder.py MODEL FOLDER")
    try:
        main(*sys.argv[1:])
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except retinart.RetinartError as error:
        sys.exit(str(error))
