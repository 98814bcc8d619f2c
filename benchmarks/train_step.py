"""A training step against torchvision's, with the same backbone, size and batch, in turns.

    python -m retinart.benchmarks.train_step --images DIR --annotations FILE --model resnet18

A step is: normalise, forward, loss, backward, clip, SGD; ours keeps its moving average besides.
Both get the same images, already at the input's size, and the same boxes. torchvision is imported
from a folder of its own, see `--torchvision`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from retinart.benchmarks.peers.torchvision_shim import check_installed, load_torchvision
from retinart.benchmarks.program import new_parser, run
from retinart.benchmarks.timing import statistics
from retinart.benchmarks.timing.alternate import alternate, milliseconds
from retinart.benchmarks.timing.machine import describe, reference
from retinart.engine.common.table import Table
from retinart.engine.evaluation.coco import load_coco
from retinart.train.data.batches import Batch, Batches
from retinart.train.data.rule import training_rule
from retinart.train.data.settings import NO_AUGMENTATION
from retinart.train.initial import start
from retinart.train.learner import Learner
from retinart.train.ranks import Ranks
from retinart.train.settings import TrainSettings

_LR = 0.001


def main(argv: Sequence[str] | None = None) -> int:
    """Time the steps and print the ratio. Returns the exit code."""
    return run(_work, _parser(), argv)


def _work(args: argparse.Namespace) -> None:
    check_installed(args.torchvision)
    torch.set_num_threads(args.threads)
    settings = TrainSettings(
        annotations=args.annotations,
        images=args.images,
        name="unused",
        model=args.model,
        overrides={"p6_from": "p5"},  # torchvision's choice when it is given no other
        size=(args.height, args.width),
        batch_size=args.batch,
        lr=_LR,
    )
    dataset = load_coco(settings.annotations, settings.images)
    begun = start(settings, dataset.classes)
    batches = Batches(
        dataset,
        rule=training_rule(begun.variant, settings.size),
        batch_size=settings.batch_size,
        seed=0,
        augmentation=NO_AUGMENTATION,
    )
    learner = Learner(begun, settings, Ranks(device=torch.device("cpu")))
    theirs = _torchvision_step(args, len(dataset.classes), settings)
    noise, numbers = list[float](), {name: count() for name in ("retinart", "torchvision")}

    def step(name: str, work: Callable[[Batch], object]) -> float:
        batch = batches[next(numbers[name]) % batches.steps_per_epoch]
        noise.append(reference())
        return milliseconds(lambda: work(batch))

    arms = {
        "retinart": partial(step, "retinart", lambda batch: learner.step(batch, _LR)),
        "torchvision": partial(step, "torchvision", theirs),
    }
    times = alternate(arms, args.repeats, warm_up=args.warmup)
    ratio = statistics.ratio_of_medians(times["torchvision"], times["retinart"])
    rows = [(name, f"{statistics.median(ms).value:.0f}") for name, ms in times.items()]
    print(
        f"{args.model}, {args.height}x{args.width}, batch {args.batch}, {args.threads} threads, "
        f"{args.repeats} steps each, in turns; {describe().cpu}, torch {torch.__version__}\n\n"
        f"{Table(head=('', 'ms a step, median'), rows=rows).markdown()}\n\n"
        f"torchvision / retinart: {ratio} times\n"
        f"The reference workload varied by {statistics.spread(noise):.0%}."
    )


def _torchvision_step(
    args: argparse.Namespace, num_classes: int, settings: TrainSettings
) -> Callable[[Batch], object]:
    torchvision = load_torchvision(args.torchvision)
    detection, ops = torchvision.models.detection, torchvision.ops
    body = getattr(torchvision.models, args.model)(weights=None, norm_layer=torch.nn.BatchNorm2d)
    backbone = detection.backbone_utils._resnet_fpn_extractor(
        body,
        5,
        returned_layers=[2, 3, 4],
        extra_blocks=ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    )
    model: Any = detection.RetinaNet(
        backbone, num_classes, min_size=min(settings.size), max_size=max(settings.size)
    )
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=_LR, momentum=0.9, weight_decay=1e-4)

    def step(batch: Batch) -> None:
        model.train()
        images = [f.permute(2, 0, 1).flip(0).contiguous().float() / 255 for f in batch.frames]
        targets = [{"boxes": o.boxes, "labels": o.labels} for o in batch.objects]
        loss = sum(model(images, targets).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        loss.item()

    return step


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("benchmarks.train_step", __doc__)
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    add("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances")
    add("--model", default="resnet18", help="the backbone")
    add("--height", type=int, default=256, help="of the input")
    add("--width", type=int, default=320, help="of the input")
    add("--batch", type=int, default=8, help="images in a batch")
    add("--repeats", type=int, default=20, help="steps of each")
    add("--warmup", type=int, default=2, help="steps before them, which do not count")
    add("--threads", type=int, default=2, help="of PyTorch")
    add(
        "--torchvision",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds torchvision",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
