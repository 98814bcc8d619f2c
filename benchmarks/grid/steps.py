"""What the grid is made of: weights, files and timings, each made once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from retinart.benchmarks.grid.settings import GridSettings, the_peer
from retinart.benchmarks.latency.run import BenchmarkSettings, benchmark
from retinart.benchmarks.timing import machine
from retinart.benchmarks.timing.steps import Steps, code_of_timing, hash_of
from retinart.calib.calibrate import calibrate
from retinart.calib.observe import choose_images
from retinart.calib.settings import CalibrationSettings
from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.variant import Variant
from retinart.engine.runtime.openvino_runner import has_bf16
from retinart.export.export import export_checkpoint, input_size
from retinart.export.settings import ExportSettings
from retinart.export.sources import SOURCES
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import RetinaNet, build_retinanet

SOURCE = next(s for s in SOURCES if s.name == "torchvision retinanet_resnet50_fpn")
CANDIDATES = 1000  # (anchor, class) pairs above the threshold in the image that scores are set on
THRESHOLD = 0.05


class Grid:
    """The steps of the grid."""

    def __init__(self, settings: GridSettings) -> None:
        self._settings = settings
        self._steps = Steps(settings.work / "done.json", key="grid 1")
        self._images = list_images(settings.images)

    def files(self, backbone: str, size: int) -> tuple[Path, Path, Path]:
        """The checkpoint of a backbone, and its FP32 and INT8 file of a scale."""
        s = self._settings
        checkpoint = s.work / f"{backbone}.pth"
        first = read_image(self._images[0])
        inputs = {"classes": s.num_classes, "image": sha256(self._images[0])}
        self._steps.file(
            "weights",
            checkpoint,
            inputs,
            lambda: random_checkpoint(checkpoint, backbone, s.num_classes, first),
        )
        fp32 = s.work / f"{backbone}-{size}.onnx"
        export = ExportSettings(imgsz=size, tensorrt=False)
        self._steps.file(
            "export",
            fp32,
            {"checkpoint": sha256(checkpoint), "imgsz": size},
            lambda: export_checkpoint(checkpoint, fp32, export),
        )
        int8 = fp32.with_suffix(".int8.onnx")
        wanted = CalibrationSettings(images=s.images, num=s.calibration_num)
        chosen = hash_of(choose_images(s.images, s.calibration_num, 0))
        self._steps.file(
            "calibrate",
            int8,
            {"fp32": sha256(fp32), "images": chosen},
            lambda: calibrate(fp32, int8, wanted),
        )
        return checkpoint, fp32, int8

    def timing(self, backbone: str, size: int) -> dict[str, Any]:
        """What `benchmark` says of a backbone at a scale, with both added."""
        s = self._settings
        checkpoint, fp32, int8 = self.files(backbone, size)
        settings = BenchmarkSettings(
            images=s.images,
            peers=("torchvision",),
            checkpoint=checkpoint,
            torchvision=s.peers,
            num_images=s.num_images,
            repeats=s.repeats,
            threads=s.threads,
            compute=("fp32", "bf16") if has_bf16() else ("fp32",),
        )
        inputs = {
            "models": [sha256(fp32), sha256(int8)], "compute": list(settings.compute),
            "images": hash_of(self._images), "num": s.num_images, "repeats": s.repeats,
            "threads": s.threads, "cpu": machine.describe()["cpu"], "timing": code_of_timing(),
        }  # fmt: skip

        def make() -> dict[str, Any]:
            found = benchmark([fp32, int8], settings)
            the_peer(found)  # a timing without it is not to be kept
            return found

        found = self._steps.once("time", fp32, inputs, make)
        return {**found, "backbone": backbone, "imgsz": size}

    def kept_timing(self, backbone: str, size: int) -> dict[str, Any]:
        """As `timing`, but what was timed last, whatever the code was; nothing is made.

        Raises:
            BadInput: it was never timed with these settings.
        """
        s = self._settings
        wanted = (f"{backbone}-{size}.onnx", s.num_images, s.repeats, s.threads)
        found = [
            t
            for t in self._steps.kept("time")
            if (t["models"][0]["file"], len(t["images"]), t["repeats"], t["threads"]) == wanted
        ]
        if not found:
            raise BadInput(
                f"{s.work} holds no timing of {backbone} at {size} on {s.num_images} images "
                f"with {s.repeats} repeats and {s.threads} threads",
                fix="Give the flags that it was timed with, or leave out --report-only",
            )
        return {**found[-1], "backbone": backbone, "imgsz": size}


def random_checkpoint(path: Path, backbone: str, num_classes: int, image: Image) -> None:
    """Random weights in torchvision's own keys, frozen norms as in its published files.

    Args:
        path: where to write.
        backbone: as torchvision calls it.
        num_classes: of the class head.
        image: (H, W, 3) uint8 BGR, on which scores are scaled.
    """
    torch.manual_seed(0)
    variant = Variant(
        source=SOURCE.name, backbone=backbone, num_classes=num_classes, **SOURCE.settings
    )
    model = build_retinanet(variant).eval()
    _scale_scores(model, variant, image)
    state = {
        SOURCE.original(key): tensor
        for key, tensor in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


@torch.inference_mode()
def _scale_scores(model: RetinaNet, variant: Variant, image: Image) -> None:
    """Bring the outputs into the range of a trained network's, on one image at 400."""
    for name, parameter in model.backbone.named_parameters():
        if name.endswith(("bn3.weight", "bn2.weight")) and "layer" in name:
            parameter.fill_(0.3)  # what a block adds stays small, or it grows from block to block
    for head in (model.cls_head, model.box_head):
        for conv in head.convs:
            assert isinstance(conv, torch.nn.Conv2d)
            torch.nn.init.kaiming_normal_(conv.weight)
    rule, _, _ = input_size(variant, ExportSettings(imgsz=400))
    frames, _ = rule.apply([image])
    outputs = model(normalize(torch.from_numpy(frames), variant))
    logits = torch.cat([level.flatten() for level in outputs.logits])
    deltas = torch.cat([level.flatten() for level in outputs.deltas])
    gain = 1 / logits.std()
    bias = model.cls_head.output.bias
    assert bias is not None
    lowest = torch.topk((logits - bias.mean()) * gain, min(CANDIDATES, len(logits))).values[-1]
    model.cls_head.output.weight.mul_(gain)
    bias.fill_(math.log(THRESHOLD / (1 - THRESHOLD)) - lowest)
    model.box_head.output.weight.mul_(0.3 / deltas.std())
