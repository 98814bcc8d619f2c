"""The settings of a training run: one frozen record that checks itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from retinart.engine.common.bounded_reading import read_json
from retinart.engine.common.typed_json import from_plain
from retinart.engine.errors import BadInput
from retinart.engine.model.variant import as_tuples
from retinart.train.data.settings import Augmentation
from retinart.train.loss.settings import LossSettings

DEFAULT_MODEL = "tiny"


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
        annotations, images: a COCO instances file and its image folder.
        check_images: decode every image before the training, and leave out the unreadable ones.
        val_annotations, val_images: the same for measuring AP; without them no `best.pt` is
            written.
        eval_every: epochs between two measurements of AP.
        name: the run's folder below `runs`.
        model: a name that `preset` knows; None for the model of `weights`, or else DEFAULT_MODEL.
        overrides: fields of `Variant` that differ from the preset's, such as `anchor_sizes`.
        prior: initial probability of every class (Lin et al. 2017, section 4.1); 0.5 gives a bias
            of 0.
        norm: the backbone's norms: "batch", "group", or "frozen" for batch norms that stay as
            `weights` or `backbone_weights` hold them.
        backbone_weights: a file of ImageNet weights under torchvision's names.
        weights: a checkpoint of ours to start from; classes that it does not name start afresh.
        quantize: a record of `retinart calibrate`; the network rounds in training as its INT8 file
            will, and AP is that of the rounded network.
        size: (height, width) of the network input in pixels, multiples of 32.
        multiscale: range of factors of `size`, drawn for every step, rounded to multiples of 32.
        aspect_batches: images taller than wide get batches of their own, with a turned input.
        epochs: how many.
        batch_size: images of a step, over all processes.
        accumulate: how many parts a process splits its share of a step into, to save memory. The
            losses and gradients stay the same.
        optimizer: "sgd" with momentum, as the paper, or "adamw", which learns faster from scratch.
        lr: highest learning rate, reached after `warmup_steps`.
        schedule: "cosine" to 0, or "step", which divides the rate by ten at each of `milestones`.
        milestones: shares of the run.
        weight_decay: None for 1e-4 with SGD and 0.05 with AdamW.
        max_grad_norm: limit of the gradient's norm; 0 for no limit.
        ema_decay: decay of the moving average of weights that is saved; 0 saves the last weights.
        seed: of the weights, the order of images and their augmentation.
        workers: threads that load images.
        threads: threads of PyTorch; None leaves the number to PyTorch.
        device: "cpu", "cuda", ...; "cuda" gives each of several processes a GPU of its own.
        precision: of the network's forward and backward pass; weights and losses stay float32.
        loss, augmentation: see `LossSettings` and `Augmentation`.

    Raises:
        BadInput: a setting cannot be trained with.
    """

    annotations: Path
    images: Path
    check_images: bool = True
    val_annotations: Path | None = None
    val_images: Path | None = None
    eval_every: int = 1
    name: str = "exp"
    runs: Path = Path("runs/train")
    model: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    prior: float = 0.01
    norm: Literal["batch", "frozen", "group"] = "batch"
    backbone_weights: Path | None = None
    weights: Path | None = None
    quantize: Path | None = None
    size: tuple[int, int] = (256, 320)
    multiscale: tuple[float, float] = (1.0, 1.0)
    aspect_batches: bool = False
    epochs: int = 12
    batch_size: int = 16
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.02
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    momentum: float = 0.9
    weight_decay: float | None = None
    warmup_steps: int = 200
    max_grad_norm: float = 10.0
    ema_decay: float = 0.998
    seed: int = 0
    workers: int = 2
    threads: int | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    loss: LossSettings = field(default_factory=LossSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        height, width = self.size
        if min(height, width) < 32 or height % 32 or width % 32:
            raise BadInput(
                f"cannot train at {height}x{width} pixels", fix="Give multiples of 32, from 32 on"
            )
        if min(self.epochs, self.batch_size) < 1 or not 0 < self.lr < math.inf:
            raise BadInput(
                f"cannot train {self.epochs} epochs of batches of {self.batch_size} "
                f"at a learning rate of {self.lr}",
                fix="Give numbers above zero",
            )
        for name, value in (
            ("weight decay", self.weight_decay or 0.0),
            ("number of warm-up steps", self.warmup_steps),
            ("longest gradient", self.max_grad_norm),
        ):
            if not 0 <= value < math.inf:
                raise BadInput(f"the {name} is {value}", fix="Give a number from 0 on")
        low, high = self.multiscale
        if not 0.1 <= low <= high <= 10:
            raise BadInput(
                f"the range of scales is {low:g} to {high:g}",
                fix="Give a lower and a higher factor",
            )
        if not 0 < self.prior < 1:
            raise BadInput(f"the prior is {self.prior:g}", fix="Give a number between 0 and 1")
        if not 0 <= self.ema_decay < 1:
            raise BadInput(f"the EMA's decay is {self.ema_decay:g}", fix="Give 0 or less than 1")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"the momentum is {self.momentum:g}", fix="Give 0 or less than 1")
        if not all(0 < share < 1 for share in self.milestones):
            raise BadInput(
                f"the milestones are {', '.join(f'{share:g}' for share in self.milestones)}",
                why="they are shares of the run",
                fix="Give numbers between 0 and 1",
            )
        for name, whole in (("accumulate", self.accumulate), ("eval-every", self.eval_every)):
            if whole < 1:
                raise BadInput(f"{name} is {whole}", fix="Give a whole number from 1 on")
        if self.accumulate > 1 and self.loss.cls_loss.startswith("ohem"):
            raise BadInput(
                "accumulate does not go with OHEM",
                why="OHEM divides the losses by how many anchors the whole step takes, which is "
                "not known before the step's last part",
                fix="Leave accumulate at 1",
            )
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"the seed is {self.seed}", fix="Give a whole number from 0 to 2^63 - 1")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise BadInput(f"threads is {self.threads}", fix="Give a whole number from 1 to 1024")
        if (self.val_annotations is None) != (self.val_images is None):
            raise BadInput(
                "validation needs both annotations and images", fix="Give both or neither"
            )
        if self.norm == "frozen" and not (self.weights or self.backbone_weights):
            raise BadInput(
                "frozen batch norms without weights do nothing",
                fix="Give `weights` or `backbone_weights`, or set `norm` to batch or group",
            )

        if self.quantize is not None:
            self._check_quantize()

    def _check_quantize(self) -> None:
        if self.weights is None:
            raise BadInput(
                "only trained weights learn to live with rounding",
                fix="Give `weights`, and with `quantize` a record of their calibration",
            )
        if self.norm == "batch":
            raise BadInput(
                "batch norms that learn do not go with `quantize`",
                why="the INT8 file rounds weights that the norms are part of",
                fix="Set `norm` to frozen, or to group if the weights have group norms",
            )
        if self.precision != "fp32":
            raise BadInput(
                f"`quantize` does not go with `precision` {self.precision}",
                why="that would round twice",
                fix="Leave `precision` at fp32",
            )

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return self.runs / self.name

    @property
    def weights_to_export(self) -> Path:
        """`best.pt` if the run measured AP, and `last` otherwise."""
        best = self.folder / "best.pt"
        return best if best.exists() else self.last

    @property
    def last(self) -> Path:
        """The run's weights after the last whole epoch."""
        return self.folder / "last.pt"

    @property
    def previous(self) -> Path:
        """The same after the epoch before it, for when `last` is damaged; gone after the run."""
        return self.folder / "previous.pt"

    def check_new(self) -> None:
        """Refuse to write over a run.

        Raises:
            BadInput: the folder holds one.
        """
        if self.last.exists():
            raise BadInput(
                f"{self.folder} holds a finished or stopped run",
                fix="Choose another `name`, remove the folder, or go on with the run: `resume`",
            )

    @property
    def inputs(self) -> list[Path]:
        """The files and folders that are read."""
        return [path for name in _INPUTS if (path := getattr(self, name)) is not None]

    def absolute(self) -> TrainSettings:
        """The same with paths that hold in every working folder."""
        given = {name: getattr(self, name) for name in ("runs", *_INPUTS)}
        return replace(self, **{name: path.absolute() for name, path in given.items() if path})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @classmethod
    def from_json(cls, data: object, name: str = "the run's record") -> TrainSettings:
        """The record that `to_json` wrote; `name` is the file's, for errors.

        Raises:
            BadInput: a field is missing, unknown, of another type or beyond its range.
        """
        fix = "Copy it again, or start a new run from the `weights`"
        found = from_plain(cls, data, name, fix=fix)
        return replace(found, overrides={k: as_tuples(v) for k, v in found.overrides.items()})


_INPUTS = (
    "annotations", "images", "val_annotations", "val_images", "backbone_weights", "weights",
    "quantize",
)  # fmt: skip


def read_settings(folder: Path) -> TrainSettings:
    """The settings of the run in a folder.

    Raises:
        BadInput: the folder holds no run, or its file is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        raise BadInput(
            f"{folder} holds no run", why=f"there is no {path.name}", fix="Give a run's folder"
        )
    content = read_json(path, fix="Copy it again, or start a new run from the `weights`")
    settings = TrainSettings.from_json(content, str(path))
    return replace(settings, runs=folder.parent, name=folder.name)
