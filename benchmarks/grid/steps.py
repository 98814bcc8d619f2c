"""What the grid is made of: weights, files and timings, each made once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from retinart.benchmarks.grid.points import the_peer
from retinart.benchmarks.latency.scales import Scale, ScaleSteps
from retinart.benchmarks.timing.settings import BenchmarkSettings
from retinart.benchmarks.timing.steps import Steps
from retinart.engine.common.files import atomic_path, sha256
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.variant import Variant
from retinart.export.checkpoint_projects import PROJECTS
from retinart.export.export import input_size
from retinart.export.settings import ExportSettings
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import RetinaNet, build_retinanet

SOURCE = next(s for s in PROJECTS if s.name == "torchvision retinanet_resnet50_fpn")
CANDIDATES = 1000  # (anchor, class) pairs above the threshold in the image that scores are set on
THRESHOLD = 0.05


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """What to measure; the command line describes each field."""

    images: str
    backbones: tuple[str, ...] = ("resnet50", "resnet101")
    imgsz: tuple[int, ...] = (400, 500, 600, 700, 800)
    num_images: int = 4
    repeats: int = 5
    threads: int = 2
    calibration_num: int = 2
    num_classes: int = 91
    work: Path = Path("build/grid")
    torchvision: Path | None = None


class GridSteps:
    """The steps of the grid."""

    def __init__(self, settings: GridSettings) -> None:
        self._settings = settings
        self._steps = Steps(settings.work / "done.json", job="grid")
        self._image = list_images(settings.images)[0]
        self._scales = ScaleSteps(
            self._steps, settings.work, images=settings.images, num=settings.calibration_num
        )

    def files(self, backbone: str, size: int) -> tuple[Path, Path, Path]:
        """The checkpoint of a backbone, and its FP32 and INT8 file of a scale."""
        classes = self._settings.num_classes
        path = self._checkpoint(backbone)
        inputs = {"classes": classes, "image": sha256(self._image), **self._scales.code}

        def make() -> None:
            random_checkpoint(path, backbone, classes, read_image(self._image))

        checkpoint = self._steps.file("weights", path, inputs, make)
        fp32 = self._scales.fp32(checkpoint, size)
        return checkpoint, fp32, self._scales.int8(fp32)

    def timing(self, backbone: str, size: int) -> Scale:
        """A backbone at a scale beside the peer; a timing without the peer is not kept."""
        s = self._settings
        checkpoint, *files = self.files(backbone, size)
        settings = BenchmarkSettings(
            images=s.images,
            peers=("torchvision",),
            checkpoint=checkpoint,
            torchvision=s.torchvision,
            num_images=s.num_images,
            repeats=s.repeats,
            threads=s.threads,
            compute=("fp32", "bf16"),
        )
        return self._scales.time(checkpoint, size, files, settings, check=the_peer)

    def kept_timing(self, backbone: str, size: int) -> Scale:
        """The latest kept timing with these settings, also one of older code.

        Raises:
            BadInput: it was never timed with these settings.
        """
        s = self._settings
        for scale in self._scales.kept(self._checkpoint(backbone), size):
            found = scale.benchmark
            settings = len(found.images), found.repeats, found.threads
            if settings == (s.num_images, s.repeats, s.threads):
                return scale
        raise BadInput(
            f"{s.work} holds no timing of {backbone} at {size} on {s.num_images} images with "
            f"{s.repeats} repeats and {s.threads} threads",
            fix="Give the settings that it was timed with, or time it",
        )

    def _checkpoint(self, backbone: str) -> Path:
        return self._settings.work / f"{backbone}.pth"


def random_checkpoint(path: Path, backbone: str, num_classes: int, image: Image) -> None:
    """Write random weights in torchvision's own keys, with frozen norms as in its published files.

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
            parameter.fill_(0.3)  # a block adds little, so that values do not grow by the block
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
