"""What the ablations train, and the paper's figures beside it: Lin et al., Focal Loss, 2017.

The paper's figures are COCO AP of RetinaNet-R50 at 600 pixels, and of R101 in the table of OHEM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retinart.train.loss.settings import LossSettings

PRIOR = 0.01
_BASE = (16, 32, 64, 128, 256)  # sides of `tiny`'s anchors, P3 to P7
_RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        name: of its folder.
        loss: the loss.
        overrides: fields of `Variant` that differ from the model's.
        prior: probability of foreground that the class head starts from.
    """

    name: str
    loss: LossSettings
    overrides: Mapping[str, Any] = field(default_factory=dict)
    prior: float = PRIOR

    def to_json(self) -> dict[str, Any]:
        """What the weights depend on."""
        return {"loss": asdict(self.loss), "overrides": dict(self.overrides), "prior": self.prior}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: what is varied, the training, and the paper's AP where the paper has it."""

    cells: tuple[str, ...]
    training: Training
    paper: float | str | None = None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: a word for file names and `--only`.
        title: what is compared.
        head: names of the columns before AP.
        rows: in the paper's order.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]


def focal(gamma: float, alpha: float, **more: Any) -> Training:
    """A training with the focal loss."""
    suffix = more.pop("suffix", "")
    loss = LossSettings(gamma=gamma, alpha=alpha)
    return Training(name=f"focal-g{gamma:g}-a{alpha:g}{suffix}", loss=loss, **more)


def ohem(count: int, nms: float, *, one_to_three: bool = False) -> Training:
    """A training with online hard example mining."""
    kind = "ohem_1to3" if one_to_three else "ohem"
    return Training(
        name=f"{kind}-{count}-{nms:g}",
        loss=LossSettings(
            cls_loss="ohem_1to3" if one_to_three else "ohem", ohem_batch=count, ohem_nms=nms
        ),
    )


def anchors(scales: int, ratios: int) -> Training:
    """A training with this many scales in an octave and aspect ratios."""
    if (scales, ratios) == (3, 3):
        return BEST
    sizes = tuple(tuple(side * 2 ** (i / scales) for i in range(scales)) for side in _BASE)
    return Training(
        name=f"anchors-{scales}x{ratios}",
        loss=BEST.loss,
        overrides={"anchor_sizes": sizes, "anchor_ratios": _RATIOS[ratios]},
    )


BEST = focal(2, 0.25)
CE = Training(name="ce", loss=LossSettings(cls_loss="ce"))
_CE_ALPHA = {0.1: 0.0, 0.25: 10.8, 0.5: 30.2, 0.75: 31.1, 0.9: 30.8, 0.99: 28.7, 0.999: 25.1}
_FOCAL = (
    (0.0, 0.75, 31.1), (0.1, 0.75, 31.4), (0.2, 0.75, 31.9), (0.5, 0.5, 32.9),
    (1.0, 0.25, 33.7), (2.0, 0.25, 34.0), (5.0, 0.25, 32.2),
)  # fmt: skip
_ANCHORS = {
    (1, 1): 30.3, (2, 1): 31.9, (3, 1): 31.8, (1, 3): 32.4, (2, 3): 34.2, (3, 3): 34.0,
    (4, 3): 33.8,
}  # fmt: skip
_OHEM = {(128, 0.5): 32.8}  # the best of each kind is all that was at hand
_ONE_TO_THREE = {(128, 0.5): 31.1}
_OHEM_ORDER = [(count, nms) for nms in (0.7, 0.5) for count in (128, 256, 512)]

TABLES = (
    PaperTable(
        name="prior",
        title="With and without the prior of 0.01 (section 4.1)",
        head=("loss", "prior"),
        rows=(
            Row(cells=("CE", "0.01"), training=CE, paper=30.2),
            Row(
                cells=("CE", "0.5"),
                training=Training(name="ce-no-prior", loss=CE.loss, prior=0.5),
                paper="diverges",
            ),
            Row(cells=("FL", "0.01"), training=BEST, paper=34.0),
            Row(cells=("FL", "0.5"), training=focal(2, 0.25, prior=0.5, suffix="-no-prior")),
        ),
    ),
    PaperTable(
        name="alpha",
        title="Alpha-balanced cross entropy (table 1a)",
        head=("alpha",),
        rows=tuple(
            Row(cells=(f"{alpha:g}",), training=focal(0, alpha), paper=ap)
            for alpha, ap in _CE_ALPHA.items()
        ),
    ),
    PaperTable(
        name="gamma",
        title="Focal loss, with the paper's alpha for each gamma (table 1b)",
        head=("gamma", "alpha"),
        rows=tuple(
            Row(cells=(f"{gamma:g}", f"{alpha:g}"), training=focal(gamma, alpha), paper=ap)
            for gamma, alpha, ap in _FOCAL
        ),
    ),
    PaperTable(
        name="anchors",
        title="Anchors: scales in an octave x aspect ratios (table 1c)",
        head=("scales", "ratios"),
        rows=tuple(
            Row(cells=(str(scales), str(ratios)), training=anchors(scales, ratios), paper=ap)
            for (scales, ratios), ap in _ANCHORS.items()
        ),
    ),
    PaperTable(
        name="ohem",
        title="Online hard example mining (table 1d)",
        head=("method", "batch", "NMS"),
        rows=(
            *(
                Row(cells=("OHEM", str(n), f"{t:g}"), training=ohem(n, t), paper=_OHEM.get((n, t)))
                for n, t in _OHEM_ORDER
            ),
            *(
                Row(
                    cells=("OHEM 1:3", str(n), "0.5"),
                    training=ohem(n, 0.5, one_to_three=True),
                    paper=_ONE_TO_THREE.get((n, 0.5)),
                )
                for n in (128, 256, 512)
            ),
            Row(cells=("FL", "-", "-"), training=BEST, paper=36.0),
        ),
    ),
)
