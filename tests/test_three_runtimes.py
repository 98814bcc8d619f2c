"""One file, three runtimes: PyTorch, OpenVINO and ONNX Runtime find the same on real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retinart.engine.detector import Detector
from retinart.engine.evaluation.matching import match
from retinart.engine.media.images import list_images, read_image
from retinart.export.checkpoint import load_any
from retinart.train.model.predict import normalize, postprocess

COCO_IMAGES = 1


@pytest.mark.parametrize("name", ["torchvision", "torchvision v2"])
def test_the_same_detections(
    name: str,
    public_model: Callable[[str], Path],
    public_checkpoint: Callable[[str], Path],
    shared: Callable[..., Path],
) -> None:
    path, loaded = public_model(name), load_any(public_checkpoint(name))

    paths = [shared("golden", "input.png")]
    paths += list_images(str(shared("data", "coco_val206", "images")))[:COCO_IMAGES]
    matched = 0
    with Detector(path) as openvino, Detector(path, runtime="onnxruntime") as onnxruntime:
        for image in map(read_image, paths):
            batch, (resized,) = openvino.info.resize.apply([image])
            with torch.inference_mode():
                outputs = loaded.model(normalize(torch.from_numpy(batch), loaded.variant))
            frame = batch.shape[1:3]
            # NMS in the file clips to the frame, NMS in NumPy to the image
            for detector, size in ((openvino, resized.size), (onnxruntime, frame)):
                wanted = detector.thresholds
                reference = postprocess(outputs, loaded.variant, frame, wanted, sizes=[size])[0]
                expected = resized.detections_to_source(reference)
                full = len(reference) == wanted.detections_per_img
                floor = float(reference.confidence[-1]) if full else 0.05
                result = match(expected, detector(image), floor=floor)
                assert result.same, (detector.runtime, result)
                matched += result.matched
    assert matched > 20 * len(paths)
