"""A training step against torchvision's, with the same backbone, size and batch, in turns.

    python -m retinart.benchmarks.train_step --images DIR --annotations FILE --model resnet18

A step is: normalise, forward, loss, backward, clip, SGD; ours keeps its moving average besides.
Both get the same images, already at the input's size, and the same boxes. Each turn begins with a
step that does not count, because the two treat freed memory differently. torchvision is imported
from a folder of its own, see `--torchvision`. Where other programs use the same cores, processor
time tells more than elapsed time; OMP_WAIT_POLICY=passive keeps waiting threads out of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from retinart.train.memory import kept_memory
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
        precision=args.precision,
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
    works: dict[str, Callable[[Batch], object]] = {
        "retinart": lambda batch: learner.step(batch, _LR),
        "torchvision": _torchvision_step(args, len(dataset.classes), settings),
    }
    noise, numbers = list[float](), {name: count() for name in works}

    def step(name: str) -> tuple[float, float]:
        with nullcontext() if name == "torchvision" else kept_memory():
            return timed(name)

    def timed(name: str) -> tuple[float, float]:
        batch = batches[next(numbers[name]) % batches.steps_per_epoch]
        noise.append(reference())
        works[name](batch)  # brings the process into the state in which steps follow each other
        began = time.process_time()
        elapsed = milliseconds(lambda: works[name](batch))
        return elapsed, 1000 * (time.process_time() - began)

    arms = {name: partial(step, name) for name in works}
    times = alternate(arms, args.repeats, warm_up=args.warmup)
    rows, ratios = [], []
    for name, measured in times.items():
        elapsed, busy = zip(*measured, strict=True)
        rows.append((name, *(f"{statistics.median(ms).value:.0f}" for ms in (elapsed, busy))))
    for kind in (0, 1):  # elapsed and processor time
        theirs, ours = ([t[kind] for t in times[n]] for n in ("torchvision", "retinart"))
        ratios.append(statistics.ratio_of_medians(theirs, ours))
    machine = describe()
    print(
        f"{args.model}, {args.height}x{args.width}, batch {args.batch}, {args.precision}, "
        f"{args.threads} threads, {args.repeats} steps each, in turns; {machine.cpu} with "
        f"{' '.join(machine.flags)}, torch {torch.__version__}\n\n"
        f"{Table(head=('', 'ms a step, median', 'processor ms'), rows=rows).markdown()}\n\n"
        f"torchvision / retinart: {ratios[0]} times; in processor time {ratios[1]} times\n"
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
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
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
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network")
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
