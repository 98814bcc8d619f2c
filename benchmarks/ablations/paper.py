"""What the ablations train, and the paper's figures beside it: Lin et al., Focal Loss, 2017.

The paper's figures are COCO AP of RetinaNet-R50 at 600 pixels, and of R101 in the table of OHEM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from retinart.train.loss.settings import LossSettings

PRIOR = 0.01
_BASE = (16, 32, 64, 128, 256)  # sides of `tiny`'s anchors, P3 to P7
_RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}
_OHEM_NAMES = {"ohem": "OHEM", "ohem_1to3": "OHEM 1:3"}


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


@dataclass(frozen=True)
class Row:
    """A row of a table: what is varied, the training, and the paper's AP where the paper has it."""

    cells: tuple[str, ...]
    training: Training
    paper: float | str | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: a word for `--only`, its title, and its columns before AP."""

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]


def focal(gamma: float, alpha: float, **more: Any) -> Training:
    """A training with the focal loss."""
    suffix = more.pop("suffix", "")
    loss = LossSettings(gamma=gamma, alpha=alpha)
    return Training(name=f"focal-g{gamma:g}-a{alpha:g}{suffix}", loss=loss, **more)


def ohem(kind: Literal["ohem", "ohem_1to3"], count: int, nms: float) -> Training:
    """A training with online hard example mining."""
    loss = LossSettings(cls_loss=kind, ohem_batch=count, ohem_nms=nms)
    return Training(name=f"{kind}-{count}-{nms:g}", loss=loss)


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
_PRIOR = (
    Row(("CE", "0.01"), CE, 30.2),
    Row(("CE", "0.5"), Training(name="ce-no-prior", loss=CE.loss, prior=0.5), "diverges"),
    Row(("FL", "0.01"), BEST, 34.0),
    Row(("FL", "0.5"), focal(2, 0.25, prior=0.5, suffix="-no-prior")),
)
_ALPHA = {0.1: 0.0, 0.25: 10.8, 0.5: 30.2, 0.75: 31.1, 0.9: 30.8, 0.99: 28.7, 0.999: 25.1}
_GAMMA = {
    (0.0, 0.75): 31.1, (0.1, 0.75): 31.4, (0.2, 0.75): 31.9, (0.5, 0.5): 32.9, (1.0, 0.25): 33.7,
    (2.0, 0.25): 34.0, (5.0, 0.25): 32.2,
}  # fmt: skip
_ANCHORS = {
    (1, 1): 30.3, (2, 1): 31.9, (3, 1): 31.8, (1, 3): 32.4, (2, 3): 34.2, (3, 3): 34.0,
    (4, 3): 33.8,
}  # fmt: skip
_OHEM = {("ohem", 128, 0.5): 32.8, ("ohem_1to3", 128, 0.5): 31.1}  # more was not at hand
_OHEM_ORDER: tuple[tuple[Literal["ohem", "ohem_1to3"], int, float], ...] = (
    *(("ohem", count, nms) for nms in (0.7, 0.5) for count in (128, 256, 512)),
    *(("ohem_1to3", count, 0.5) for count in (128, 256, 512)),
)

TABLES = (
    PaperTable("prior", "With and without the prior of 0.01 (section 4.1)", ("loss", "prior"),
               _PRIOR),
    PaperTable("alpha", "Alpha-balanced cross entropy (table 1a)", ("alpha",),
               tuple(Row((f"{a:g}",), focal(0, a), ap) for a, ap in _ALPHA.items())),
    PaperTable("gamma", "Focal loss, with the paper's alpha for each gamma (table 1b)",
               ("gamma", "alpha"),
               tuple(Row((f"{g:g}", f"{a:g}"), focal(g, a), ap) for (g, a), ap in _GAMMA.items())),
    PaperTable("anchors", "Anchors: scales in an octave x aspect ratios (table 1c)",
               ("scales", "ratios"),
               tuple(Row((str(s), str(r)), anchors(s, r), ap) for (s, r), ap in _ANCHORS.items())),
    PaperTable("ohem", "Online hard example mining (table 1d)", ("method", "batch", "NMS"),
               (*(Row((_OHEM_NAMES[kind], str(count), f"{nms:g}"), ohem(kind, count, nms),
                      _OHEM.get((kind, count, nms))) for kind, count, nms in _OHEM_ORDER),
                Row(("FL", "-", "-"), BEST, 36.0))),
)  # fmt: skip
