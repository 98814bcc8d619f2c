"""The training loop: plain SGD from scratch on one device."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from retinart.engine.coco import CocoDataset, load_coco
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.files import atomic_path, make_folder, sha256
from retinart.engine.progress import Progress
from retinart.engine.resize import ResizeRule
from retinart.engine.variant import Variant
from retinart.train.checkpoint import save_checkpoint
from retinart.train.criterion import LossSettings, detection_loss
from retinart.train.data import Augmentation, Batch, Batches, Objects, prefetch
from retinart.train.predict import normalize
from retinart.train.presets import preset
from retinart.train.retinanet import RetinaNet, build_retinanet, variant_anchors

COLUMNS = ("epoch", "step", "loss", "cls_loss", "box_loss", "lr", "images_per_s", "seconds")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
        annotations, images: a COCO instances file and its image folder.
        name: the run's folder below `runs`.
        model: a name that `preset` knows.
        size: (height, width) of the network input in pixels, multiples of 32.
        epochs, batch_size: how long, and how many images a step.
        optimizer: "sgd" with momentum, the paper's, or "adamw", which learns faster from scratch.
        lr: highest learning rate, reached after `warmup_steps` and lowered by a half cosine.
        weight_decay: None for 1e-4 with SGD and 0.05 with AdamW.
        max_grad_norm: gradients longer than this are shortened to it.
        ema_decay: the saved weights are a moving average of this decay; 0 for the last weights.
        seed: of the weights, the order of images and their augmentation.
        workers: threads that load images.
        threads: of PyTorch; None leaves its own choice.
        device: "cpu", "cuda", ...
        precision: of the network's forward and backward pass; weights and losses stay float32.
    """

    annotations: Path
    images: Path
    name: str
    runs: Path = Path("runs/train")
    model: str = "tiny"
    size: tuple[int, int] = (256, 320)
    epochs: int = 12
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float | None = None
    warmup_steps: int = 200
    max_grad_norm: float = 10.0
    ema_decay: float = 0.998
    seed: int = 0
    workers: int = 2
    threads: int | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)


def train(settings: TrainSettings, *, command: str = "") -> Path:
    """Train a model from scratch. Progress and the data's problems go to stderr.

    Writes `runs/name/last.pt` and `results.csv` after every epoch, each under a temporary name
    that is renamed, so that a run that is stopped leaves those of its last whole epoch.

    Args:
        command: the command line that asked for it, kept in the checkpoint.

    Returns:
        The path of the checkpoint.

    Raises:
        BadInput: unusable data or settings, or a run of this name exists.
        CheckFailed: the loss became NaN or infinite.
    """
    _check(settings)
    folder = settings.runs / settings.name
    if (folder / "last.pt").exists():
        raise BadInput(
            f"{folder} holds a finished or stopped run", fix="Choose another name or remove it"
        )
    progress = Progress()
    dataset = load_coco(settings.annotations, settings.images)
    for line in dataset.summary():
        progress.line(line)
    variant = preset(settings.model, len(dataset.classes))
    make_folder(folder)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    return _run(settings, dataset, variant, folder, progress, command)


def _run(
    settings: TrainSettings,
    dataset: CocoDataset,
    variant: Variant,
    folder: Path,
    progress: Progress,
    command: str,
) -> Path:
    device = torch.device(settings.device)
    model = build_retinanet(variant)
    widen_head_init(model)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Average(model, settings.ema_decay)
    optimizer = make_optimizer(model, settings)
    batches = Batches(
        dataset,
        rule=training_rule(variant, settings.size),
        batch_size=settings.batch_size,
        seed=settings.seed,
        augmentation=settings.augmentation,
    )
    anchors = torch.from_numpy(np.concatenate(variant_anchors(variant, settings.size))).to(device)
    per_epoch = batches.steps_per_epoch
    steps = per_epoch * settings.epochs
    rows: list[dict[str, float]] = []
    sums = np.zeros(3)
    started = epoch_started = time.perf_counter()
    with closing(prefetch(batches, range(steps), workers=settings.workers)) as source:
        for step, batch in enumerate(source):
            model.train()
            lr = learning_rate(step, steps, peak=settings.lr, warmup_steps=settings.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images = normalize(batch.frames.to(device), variant)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                outputs = model(images)
            losses = detection_loss(
                outputs,
                [Objects(*(t.to(device) for t in o)) for o in batch.objects],
                anchors,
                num_classes=variant.num_classes,
                settings=settings.loss,
            )
            values = [losses.total.item(), losses.cls.item(), losses.box.item()]
            if not math.isfinite(values[0]):
                raise _diverged(step, batch, folder, lr)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            ema.update(model)
            sums += values

            epoch, done = divmod(step + 1, per_epoch)
            now = time.perf_counter()
            progress.update(step + 1, steps, f"loss {values[0]:.3f} lr {lr:.4f}")
            if done == 0:
                mean: list[float] = (sums / per_epoch).tolist()  # no NumPy types in files
                speed = per_epoch * len(batch.paths) / (now - epoch_started)
                row = (epoch, step + 1, *mean, lr, speed, now - started)
                rows.append(dict(zip(COLUMNS, row, strict=True)))
                _write_results(folder / "results.csv", rows)
                save_checkpoint(
                    folder / "last.pt",
                    model=ema.model,
                    variant=variant,
                    classes=dataset.classes,
                    training=_record(settings, rows, command),
                )
                progress.line(
                    f"epoch {epoch}/{settings.epochs}: loss {mean[0]:.4f} (class {mean[1]:.4f}, "
                    f"box {mean[2]:.4f}), {speed:.1f} images/s, {now - started:.0f} s"
                )
                sums, epoch_started = np.zeros(3), time.perf_counter()
    return folder / "last.pt"


def make_optimizer(model: RetinaNet, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for, over all of a model's weights."""
    decay = settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=0.05 if decay is None else decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=1e-4 if decay is None else decay,
    )


def widen_head_init(model: RetinaNet) -> None:
    """Give the heads' hidden convolutions He et al.'s (2015) spread instead of the paper's 0.01.

    0.01 suits 256 channels and weights from ImageNet; narrower heads would pass on hardly any
    signal, and a training from scratch would spend its first epochs on that. The output
    convolutions keep theirs, and with it the prior.
    """
    for head in (model.cls_head, model.box_head):
        for conv in head.convs:
            torch.nn.init.kaiming_normal_(conv.get_parameter("weight"), nonlinearity="relu")


class Average:
    """A moving average of a model's weights and batch statistics, the decay rising at first.

    Args:
        model: what is averaged; its first weights are the first average.
        decay: share of the old average that an update keeps, in the end.
    """

    def __init__(self, model: RetinaNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay, self._updates = decay, 0

    @torch.no_grad()
    def update(self, model: RetinaNet) -> None:
        """Take the model's present state in."""
        self._updates += 1
        keep = min(self._decay, self._updates / (self._updates + 10))
        ours: Mapping[str, Tensor] = self.model.state_dict()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                ours[name].lerp_(value, 1 - keep)
            else:
                ours[name].copy_(value)


def training_rule(variant: Variant, size: tuple[int, int]) -> ResizeRule:
    """Images fitted into one canvas, padded with the colour that normalises to about zero."""
    return ResizeRule(
        short_side=None,
        max_size=None,
        canvas=size,
        pad_multiple=variant.pad_multiple,
        pad_value=variant.pad_value,
    )


def learning_rate(step: int, steps: int, *, peak: float, warmup_steps: int) -> float:
    """Linear warm-up to `peak`, then a half cosine to 0 at `steps`."""
    warmup = min(warmup_steps, steps // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _check(settings: TrainSettings) -> None:
    height, width = settings.size
    if min(height, width) < 32 or height % 32 or width % 32:
        raise BadInput(
            f"cannot train at {height}x{width} pixels", fix="Give multiples of 32, from 32 on"
        )
    if min(settings.epochs, settings.batch_size) < 1 or not 0 < settings.lr < math.inf:
        raise BadInput(
            f"cannot train {settings.epochs} epochs of batches of {settings.batch_size} "
            f"at a learning rate of {settings.lr}",
            fix="Give numbers above zero",
        )
    for name, value in (
        ("weight decay", settings.weight_decay or 0.0),
        ("beta of the box loss", settings.loss.beta),
        ("factor of the box loss", settings.loss.box_weight),
    ):
        if not 0 <= value < math.inf:
            raise BadInput(f"the {name} is {value}", fix="Give a number from 0 on")
    if not 0 <= settings.seed < 2**63:
        raise BadInput(f"the seed is {settings.seed}", fix="Give a whole number from 0 to 2^63 - 1")
    if settings.threads is not None and not 1 <= settings.threads <= 1024:
        raise BadInput(f"threads is {settings.threads}", fix="Give a whole number from 1 to 1024")
    try:
        torch.zeros(1, device=settings.device).item()
    except Exception as error:  # of many kinds, by device
        raise BadInput(
            f"cannot train on the device {settings.device!r}",
            why=str(error).partition("\n")[0],
            fix="Give cpu, or a device that this PyTorch and this machine have, such as cuda:0",
        ) from error


def _diverged(step: int, batch: Batch, folder: Path, lr: float) -> CheckFailed:
    names = ", ".join(path.name for path in batch.paths[:8])
    kept = folder / "last.pt"
    return CheckFailed(
        f"the loss is NaN or infinite at step {step + 1}, learning rate {lr:.2g}",
        why=f"training diverged; this batch held {names}" + ("..." if batch.paths[8:] else ""),
        fix="Lower the learning rate or lengthen the warm-up. "
        + (f"{kept} is of the last whole epoch" if kept.exists() else "No checkpoint was written"),
    )


def _write_results(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    lines = [",".join(COLUMNS), *(",".join(f"{row[c]:.6g}" for c in COLUMNS) for row in rows)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _record(
    settings: TrainSettings, rows: Sequence[Mapping[str, float]], command: str
) -> dict[str, Any]:
    """How the weights came about, in plain JSON types and without this machine's paths."""
    plain = asdict(settings)
    for key in ("annotations", "images", "runs", "name"):
        del plain[key]
    return {
        "command": command,
        "settings": plain,
        "annotations_sha256": sha256(settings.annotations),
        "torch": str(torch.__version__),
        "last_epoch": dict(rows[-1]),
    }
