"""The comparison with torchvision in eager mode: which runs are made, and what they amount to."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinart.benchmarks.cuts import RetinartCuts
from retinart.benchmarks.peers import torchvision_shim
from retinart.benchmarks.peers.torchvision_model import Torchvision
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.workers import Retinart, Run, Worker
from retinart.engine.common.files import sha256
from retinart.engine.common.progress import Progress
from retinart.engine.detections import Detections
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.evaluation.matching import Match, match
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import HEADS, ModelInfo, read_info
from retinart.engine.model.resize import PAPER_RATIO
from retinart.export.export import ExportSettings, export_checkpoint

STAGES = ("resize", "infer", "nms", "results")
PEER_STAGES = ("convert", "transform", "backbone", "head", "rest")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to compare. See the command line for each."""

    checkpoint: Path
    images: str
    num_images: int
    imgsz: tuple[int, ...]
    repeats: int
    threads: int
    models: Path
    peers: Path
    channels_last: bool


def compare(settings: Settings) -> dict[str, Any]:
    """Run the comparison at every scale; plain JSON types come out, times in milliseconds."""
    torchvision_shim.check_installed(settings.peers)
    digest = sha256(settings.checkpoint)
    models = {size: _model(settings, size, digest) for size in settings.imgsz}
    paths = choose_images(list_images(settings.images), settings.num_images)
    return {
        "comparison": "retinart on OpenVINO and torchvision eager, FP32, batch 1, "
        "from the decoded BGR frame to final boxes",
        "checkpoint": {"name": settings.checkpoint.name, "sha256": digest},
        "images": [path.name for path in paths],
        "repeats": settings.repeats,
        "threads": settings.threads,
        "channels_last": settings.channels_last,
        "peer_nms": "stand-in in NumPy, as its compiled operators do not load beside this PyTorch",
        "machine": machine.describe("torch") | {"torchvision": torchvision_shim.VERSION},
        "scales": [_scale(settings, size, model, paths) for size, model in models.items()],
    }


def choose_images(paths: Sequence[Path], count: int) -> list[Path]:
    """The first `count` images that are landscape and exactly 4:3, which no engine pads unlike.

    Raises:
        BadInput: there is none.
    """
    chosen: list[Path] = []
    for path in paths:
        height, width = read_image(path).shape[:2]
        if 3 * width == 4 * height:
            chosen.append(path)
        if len(chosen) == count:
            break
    if not chosen:
        raise BadInput(
            f"none of the {len(paths)} images is 4:3",
            why="of another shape the two networks would get inputs of different sizes",
            fix="Give a folder that holds images such as 640x480",
        )
    return chosen


def compare_detections(ours: Detections, theirs: Detections, score_thresh: float, m: int) -> Match:
    """Pairs of equal detections; those at the score where either list was cut are not held.

    torchvision lists boxes that lie in the padding, clipped to nothing, and we do not: they count
    towards its m detections and are not compared.
    """
    cut = [score_thresh]
    if m in (len(ours), len(theirs)):
        cut += [float(found.confidence.min()) for found in (ours, theirs) if len(found)]
    has_area = np.asarray((theirs.xyxy[:, 2:] > theirs.xyxy[:, :2]).all(axis=1), np.bool_)
    return match(theirs[has_area], ours, floor=max(cut))


def _model(settings: Settings, imgsz: int, digest: str) -> Path:
    """The exported file of a scale: one that is there, or a new one."""
    path = settings.models / f"{settings.checkpoint.stem}_{imgsz}.onnx"
    if not path.exists():
        print(f"exporting {path.name}", file=sys.stderr)
        export_checkpoint(settings.checkpoint, path, ExportSettings(imgsz=imgsz, tensorrt=False))
    elif read_info(path).provenance.get("checkpoint_sha256") != digest:
        raise BadInput(
            f"{path} was exported from another checkpoint", fix="Delete it, or give other --models"
        )
    return path


def _scale(settings: Settings, imgsz: int, model: Path, paths: list[Path]) -> dict[str, Any]:
    info = read_info(model)
    threads = settings.threads
    ours = Retinart(model=model, threads=threads)
    theirs = Torchvision(
        checkpoint=settings.checkpoint,
        peers=settings.peers,
        backbone=info.variant.backbone,
        num_classes=info.variant.num_classes,
        group_norm=info.variant.head_norm_groups > 0,
        bn_eps=info.variant.bn_eps,
        min_size=imgsz,
        max_size=int(imgsz * PAPER_RATIO),
        thresholds=info.thresholds,
        channels_last=settings.channels_last,
        threads=threads,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(ours, both := paths + _resized(paths, info, Path(folder)), threads=threads) as a,
        Worker(theirs, both, threads=threads) as b,
    ):
        size, peer_size = ({w.size(i) for i in range(len(both))} for w in (a, b))
        print(f"{imgsz}: our networks get {size}, torchvision's {peer_size}", file=sys.stderr)
        if size != peer_size or len(size) != 1:
            raise CheckFailed(
                f"at {imgsz} the inputs differ: ours {size}, torchvision's {peer_size}",
                fix="Give images of one size, such as 640x480, and the file of this scale",
            )
        agreement = {
            kind: asdict(_agreement(a, b, range(start, start + len(paths)), info))
            for kind, start in (("images", 0), ("images of the network's size", len(paths)))
        }  # which warms up, too
        runs, reference = _interleave(settings, len(paths), (a, b), f"{imgsz} end to end")
    cuts = RetinartCuts(model=model, heads=HEADS, threads=threads)
    with Worker(cuts, paths, threads=threads) as c:
        for _ in range(2):  # warm-up
            c.run(0)
        (cut,), more = _interleave(settings, len(paths), (c,), f"{imgsz} candidates")
    return {
        "imgsz": imgsz,
        "network_size": list(size.pop()),
        "reference_ms": [round(v, 3) for v in reference + more],
        "noise": statistics.spread(reference + more),
        "agreement": agreement,
        **_figures(runs[0], runs[1], cut),
    }


def _resized(paths: Sequence[Path], info: ModelInfo, folder: Path) -> list[Path]:
    """The images at the size that both engines resize them to, so that neither has to."""
    resized = []
    for i, path in enumerate(paths):
        _, (image,) = info.resize.apply([read_image(path)])
        height, width = image.size
        resized.append(folder / f"{i}.png")
        cv2.imwrite(str(resized[-1]), image.frame[:height, :width])
    return resized


def _agreement(a: Worker, b: Worker, images: Sequence[int], info: ModelInfo) -> Match:
    limits = info.thresholds
    total = Match(matched=0, missing=0, extra=0, score_diff=0.0, corner_diff=0.0)
    for i in images:
        (ours,), (theirs,) = a.run(i).found, b.run(i).found
        total += compare_detections(ours, theirs, limits.score_thresh, limits.detections_per_img)
    return total


def _interleave(
    settings: Settings, images: int, engines: Sequence[Worker], label: str
) -> tuple[list[list[Run]], list[float]]:
    """The runs of each of one or two engines, pair by pair, and the reference's times between."""
    progress, total = Progress(), settings.repeats * images
    runs: list[list[Run]] = [[] for _ in engines]
    reference = [machine.reference() for _ in range(3)]
    for repeat, image, in_order in statistics.turns(settings.repeats, images):
        pair = list(zip(engines, runs, strict=True))
        for engine, column in pair if in_order else pair[::-1]:
            time.sleep(machine.REST_S)
            column.append(engine.run(image))
        done = len(runs[0])
        progress.update(done, total, label)
        if done == (repeat + 1) * images:
            reference += [machine.reference() for _ in range(3)]
    return runs, reference


def _figures(ours: Sequence[Run], theirs: Sequence[Run], cuts: Sequence[Run]) -> dict[str, Any]:
    a, b = _column(ours, "total"), _column(theirs, "total")
    difference = statistics.median_of_differences(
        _column(cuts, "candidates"), _column(cuts, "heads")
    )
    selection = statistics.median(_column(cuts, "selection"))
    nms, total = float(np.median(_column(ours, "nms"))), float(np.median(a))
    return {
        "pairs": len(a),
        "ours_ms": _spread(ours, ("total", *STAGES)),
        "torchvision_ms": _spread(theirs, ("total", *PEER_STAGES, "nms")),
        "ratio_of_medians": asdict(statistics.ratio_of_medians(b, a)),
        "median_of_ratios": asdict(statistics.median_of_ratios(b, a)),
        "cuts_ms": _spread(cuts, ("heads", "candidates")),
        "selection_ms": asdict(selection),
        "candidates_less_heads_ms": asdict(difference),
        "share_after_network": {
            "value": (selection.value + nms) / total,
            "low": (selection.low + nms) / total,
            "high": (selection.high + nms) / total,
        },
    }


def _column(runs: Sequence[Run], stage: str) -> list[float]:
    return [run.ms[stage] for run in runs]


def _spread(runs: Sequence[Run], stages: Sequence[str]) -> dict[str, dict[str, float]]:
    columns = {stage: _column(runs, stage) for stage in stages}
    return {
        stage: {"p50": float(np.median(v)), "p90": float(np.percentile(v, 90))}
        for stage, v in columns.items()
    }
