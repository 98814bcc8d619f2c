"""Settings of a calibration and of a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.gate import UNDECIDED, Undecided

Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
Quantized = Literal["int8", "fp8"]
QUANTIZED: tuple[Quantized, ...] = get_args(Quantized)
Rounding = Literal["nearest", "scaled", "learned"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
WeightBits = Literal[8, 7]
WEIGHT_BITS: tuple[WeightBits, ...] = get_args(WeightBits)

CALIBRATION_IMAGES, CONVERSION_IMAGES = 200, 16  # if there are as many


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How to calibrate.

    Attributes:
        images: folder, file or glob of images to take ranges from, or several; None with a record.
        listed_in: COCO file; only the images that it lists are taken. None takes all.
        num, seed: how many of them, and the seed that draws them. None is for CALIBRATION_IMAGES,
            or for all of them where there are fewer.
        precision: int8; or fp8 (E4M3), which GPUs have since Ada and Hopper.
        method: how thresholds are chosen, see `retinart.calib.methods`.
        weight_bits: 8, or 7 for a file that gives the same numbers on CPUs with and without VNNI.
        rounding: of weights, to the nearest integer; or after that with the step of each output
            channel that changes its outputs least; or, learned, each weight up or down so that they
            change least. Only nearest works without images.
        correct_bias: move each bias so that the outputs of its convolution keep their mean. Without
            images nothing is corrected.
        record: an earlier calibration's record to take the ranges from.
        tuned: `retinart train --quantize` trained the weights with `record`. So they may be others
            than the record's, and the file rounds as the training did.
        annotations: COCO instances to measure AP on.
        eval_images: their image folder; None if it is `images`.
        max_drop: AP points that may be lost; as few layers as possible stay in float for it.
        undecided: what counts where the 95% interval of the loss holds `max_drop`: "fail" puts more
            layers into float until the interval is within the limit, and "pass" puts them there
            only where the whole interval is beyond it.
        keep_float: layers to leave in float, as patterns such as "backbone.layer1.*"; or "grouped",
            those whose convolution has groups.
        report: HTML file to write, with ranges, sensitivities and accuracy; None for no file.
    """

    images: str | tuple[str, ...] | None = None
    listed_in: Path | None = None
    num: int | None = None
    seed: int = 0
    precision: Quantized = "int8"
    method: Method = "minmax"
    weight_bits: WeightBits = 8
    rounding: Rounding = "nearest"
    correct_bias: bool = False
    record: Path | None = None
    tuned: bool = False
    annotations: Path | None = None
    eval_images: Path | None = None
    max_drop: float | None = None
    undecided: Undecided = "fail"
    keep_float: tuple[str, ...] = ()
    report: Path | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput(
                f"unknown method {self.method!r}", fix=f"Choose one of: {', '.join(METHODS)}"
            )
        if self.weight_bits not in WEIGHT_BITS:
            raise BadInput(f"`weight_bits` is {self.weight_bits}", fix="Give 8 or 7")
        if self.rounding not in ROUNDINGS:
            known = ", ".join(ROUNDINGS)
            raise BadInput(f"`rounding` is {self.rounding!r}", fix=f"Choose one of: {known}")
        if self.precision not in QUANTIZED:
            known = ", ".join(QUANTIZED)
            raise BadInput(f"`precision` is {self.precision!r}", fix=f"Choose one of: {known}")
        if self.precision == "fp8":
            self._check_fp8()
        if self.undecided not in UNDECIDED:
            raise BadInput(f"`undecided` is {self.undecided!r}", fix="Give pass or fail")
        if self.record is None and self.images is None:
            raise BadInput("there is nothing to take ranges from", fix="Give `images` or `record`")
        _check_listed_in(self.listed_in, self.images)
        if self.max_drop is not None:
            if not 0 <= self.max_drop <= 100:
                raise BadInput(f"`max_drop` is {self.max_drop}", fix="Give AP points, 0 to 100")
            if self.annotations is None:
                raise BadInput(
                    "a budget needs annotated images", fix="Give `annotations` with `max_drop`"
                )
        if self.tuned and (self.record is None or self.images is not None):
            raise BadInput(
                "`tuned` weights round by the record that they were trained with",
                fix="Give `record` and no `images`",
            )
        if self.images is None and self.rounding != "nearest":
            raise BadInput(
                f"`rounding` {self.rounding} needs the layers' outputs on images",
                fix="Give `images` as well; the ranges still come from the record",
            )
        if self.images is None and (self.max_drop is not None or self.report is not None):
            raise BadInput(
                "`max_drop` and `report` measure each layer on images",
                fix="Give `images` as well; the ranges still come from the record",
            )

    def _check_fp8(self) -> None:
        for name, value, known in (
            ("method", self.method, ("minmax", "percentile")),
            ("rounding", self.rounding, ("nearest",)),
            ("weight_bits", self.weight_bits, (8,)),
        ):
            if value not in known:
                raise BadInput(
                    f"`{name}` {value} is not for fp8",
                    why="it counts with equal steps, which integers have",
                    fix=f"Choose {' or '.join(map(str, known))}, or int8",
                )

    @property
    def annotated(self) -> tuple[Path, Path] | None:
        """The annotations' file and image folder, or None without annotations.

        Raises:
            BadInput: one of them does not exist.
        """
        if self.annotations is None:
            return None
        if not self.annotations.exists():
            raise BadInput(f"there is no file {self.annotations}", fix="Check `annotations`")
        given = (self.images,) if isinstance(self.images, str) else self.images or ()
        if self.eval_images is None and len(given) > 1:
            raise BadInput(
                "it is not known which `images` are annotated",
                why="there are several",
                fix="Give `eval_images`",
            )
        folder = self.eval_images or next(map(Path, given), None)
        if folder is None or not folder.is_dir():
            raise BadInput(
                f"there is no folder {folder} with the annotated images", fix="Give `eval_images`"
            )
        return self.annotations, folder


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """How to convert.

    Attributes:
        images: folder, file or glob of images to take ranges from, or several.
        listed_in: as in `CalibrationSettings`.
        num, seed: how many of them, and the seed that draws them. None is for CONVERSION_IMAGES,
            or for all of them where there are fewer.
        record: calibration record to take ranges from. Without one, and without images, the record
            beside the model is used if there is one.
    """

    images: str | tuple[str, ...] | None = None
    listed_in: Path | None = None
    num: int | None = None
    seed: int = 0
    record: Path | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.record is not None:
            raise BadInput("`images` and `record` are both given", fix="Give one of them")
        _check_listed_in(self.listed_in, self.images)


def _check_listed_in(listed_in: Path | None, images: str | tuple[str, ...] | None) -> None:
    if listed_in is not None and images is None:
        raise BadInput(
            f"`listed_in` {listed_in} chooses among `images`, and there are none",
            fix="Give the folder of its images with `images`",
        )
