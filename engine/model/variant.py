"""What distinguishes one RetinaNet from another, as one frozen record.

Projects that publish RetinaNets differ silently: in P6's source, anchors, normalisation, box
coding and more. Every such difference is a field here. The model, the exporter and the runtime
read the fields, and never ask which project a checkpoint came from. An exported file holds the
record in its metadata, and `retinart inspect` prints it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from retinart.engine.common.typed_json import from_plain
from retinart.engine.errors import BadInput

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
BOX_CLAMP = math.log(1000.0 / 16)
Interpolation = Literal["opencv", "pillow", "float"]
SizeRounding = Literal["floor", "float_floor", "nearest"]


def octave_sizes(
    base: tuple[float, ...] = (32, 64, 128, 256, 512),
) -> tuple[tuple[float, ...], ...]:
    """Three sizes a level: 2^0, 2^(1/3) and 2^(2/3) times the base (Lin et al. 2017, 4)."""
    return tuple(tuple(s * 2.0 ** (i / 3) for i in range(3)) for s in base)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Everything in which RetinaNets differ. Units are pixels of the network input.

    Attributes:
        source: the project whose conventions these are, for people; no code branches on it.
        backbone: a name from `retinart.train.model.backbones.BACKBONES`.
        num_classes: logits per anchor, K.
        backbone_norm_groups: groups of the backbone's GroupNorm; 0 for batch norms.
        fpn_channels: channels of P3 to P7 and of the heads.
        head_convs: convolutions before each output convolution.
        head_norm_groups: groups of the heads' GroupNorm; 0 for heads without a norm.
        p6_from: "c5" or "p5", the map that P6 is made from.
        p7_relu: whether P6 passes a ReLU on its way to P7.
        stride_in_1x1: a bottleneck has its stride in the first 1x1 convolution (MSRA), not the 3x3.
        bn_eps: epsilon of the backbone's batch norms.
        mean, std: per channel in `channel_order`, on the 0 to 255 scale.
        channel_order: the order in which the first convolution sees the channels.
        interpolation: how an image is resized; see `retinart.engine.model.interpolate`.
        size_rounding: how a side times the scale becomes whole pixels: "floor"; "nearest"; or
            "float_floor", the floor of the product of doubles, which can fall a pixel short.
        pad_multiple: the input's height and width are multiples of this.
        anchor_sizes: a tuple for each level, P3 to P7; square roots of areas.
        anchor_ratios: height over width.
        anchor_order: which of ratio and size varies slowest among the A shapes of a position.
        anchor_rounding: corners of the base anchors are rounded to integers (half to even).
        anchor_center: offset of the first centre in strides: 0.0 or 0.5.
        anchor_strides: "fixed" for 8 to 128, or "image//grid" as in torchvision.
        box_clamp: upper bound of dw and dh before the exponential; None for no bound.
        box_clamp_below: dw and dh also have the lower bound -box_clamp.
        box_plus_one: widths are x2 - x1 + 1, the legacy convention.
        clip_before_nms: boxes are clipped before NMS rather than after it.
        clip_to: boxes are clipped to the "image", the part of the input that the image covers, or
            to the whole "input" with its padding.
        detections_per_img: how many detections of an image the project keeps; an export may change
            it.
    """

    source: str
    backbone: str
    num_classes: int
    backbone_norm_groups: int = 0
    fpn_channels: int = 256
    head_convs: int = 4
    head_norm_groups: int = 0
    p6_from: Literal["c5", "p5"] = "c5"
    p7_relu: bool = True
    stride_in_1x1: bool = False
    bn_eps: float = 1e-5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    interpolation: Interpolation = "opencv"
    size_rounding: SizeRounding = "floor"
    pad_multiple: int = 32
    anchor_sizes: tuple[tuple[float, ...], ...] = octave_sizes()
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_order: Literal["ratio_outer", "size_outer"] = "ratio_outer"
    anchor_rounding: bool = False
    anchor_center: float = 0.0
    anchor_strides: Literal["fixed", "image//grid"] = "fixed"
    box_clamp: float | None = BOX_CLAMP
    box_clamp_below: bool = False
    box_plus_one: bool = False
    clip_before_nms: bool = True
    clip_to: Literal["image", "input"] = "image"
    detections_per_img: int = 100

    def __post_init__(self) -> None:
        limits = {"num_classes": (1, 100_000), "fpn_channels": (1, 8192), "head_convs": (0, 64)}
        limits |= {"head_norm_groups": (0, 8192), "backbone_norm_groups": (0, 8192)}
        limits |= {"pad_multiple": (1, 4096)}
        limits |= {"detections_per_img": (1, 2000)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise BadInput(
                    f"the model's {name} is {value!r}", fix=f"Set a whole number, {low} to {high}"
                )
        for name, choices in _CHOICES.items():
            if (choice := getattr(self, name)) not in choices:
                raise BadInput(
                    f"the model's {name} is {choice!r}", fix=f"Set {' or '.join(choices)}"
                )
        if self.head_norm_groups and self.fpn_channels % self.head_norm_groups:
            raise BadInput(
                f"the model's {self.fpn_channels} channels do not divide into "
                f"{self.head_norm_groups} groups",
                fix="Set a head_norm_groups that divides fpn_channels",
            )
        for name, lowest, highest in _RANGES:
            values = getattr(self, name)
            flat = _flat(values)
            if not all(lowest <= value <= highest for value in flat):
                raise BadInput(
                    f"the model's {name} is {values}",
                    fix=f"Set numbers from {lowest:g} to {highest:g}",
                )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise BadInput(
                f"the model's mean {self.mean} or std {self.std} does not fit three channels",
                fix="Set three numbers for each; the numbers of std must be above zero",
            )
        if not 1 <= self.num_anchors <= _MOST_ANCHORS:
            raise BadInput(
                f"the model has {self.num_anchors} anchors at a position",
                fix=f"Set 1 to {_MOST_ANCHORS} by anchor_sizes and anchor_ratios",
            )
        if len(self.anchor_sizes) != 5 or len({len(level) for level in self.anchor_sizes}) != 1:
            raise BadInput(
                "the model's anchor_sizes are not five tuples of equal length",
                fix="Set five lists of equal length, such as [32,40,50] for P3",
            )

    @property
    def num_anchors(self) -> int:
        """A, the anchors at each position."""
        return len(self.anchor_sizes[0]) * len(self.anchor_ratios) if self.anchor_sizes else 0

    def clip_size(self, frame: tuple[int, int], image: tuple[int, int]) -> tuple[int, int]:
        """The size that boxes are clipped to: the frame's, or its image's."""
        return frame if self.clip_to == "input" else image

    @property
    def mean_bgr(self) -> tuple[float, ...]:
        """The mean in OpenCV's channel order."""
        return self.mean if self.channel_order == "bgr" else self.mean[::-1]

    @property
    def pad_value(self) -> tuple[int, int, int]:
        """The BGR colour of the padding: the nearest one to zero after normalisation."""
        blue, green, red = (round(v) for v in self.mean_bgr)
        return blue, green, red

    @property
    def std_bgr(self) -> tuple[float, ...]:
        """The standard deviation in OpenCV's channel order."""
        return self.std if self.channel_order == "bgr" else self.std[::-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object, name: str) -> Variant:
        """The record that `to_dict` wrote; `name` is the file's, for errors.

        Raises:
            BadInput: a field is missing, unknown, of another type or beyond its range.
        """
        fix = "Copy or make the file again, or upgrade retinart"
        return from_plain(cls, data, name, fix=fix)


_CHOICES = {
    "p6_from": ("c5", "p5"),
    "channel_order": ("rgb", "bgr"),
    "interpolation": get_args(Interpolation),
    "size_rounding": get_args(SizeRounding),
    "anchor_order": ("ratio_outer", "size_outer"),
    "anchor_strides": ("fixed", "image//grid"),
    "clip_to": ("image", "input"),
}
# the smallest and the largest number of a field, or of the numbers in it
_RANGES = (
    ("bn_eps", 0.0, 1.0), ("mean", -1e4, 1e4), ("std", 1e-6, 1e6), ("anchor_sizes", 1e-3, 1e6),
    ("anchor_ratios", 1e-4, 1e4), ("anchor_center", -1e3, 1e3), ("box_clamp", 0.0, 80.0),
)  # fmt: skip
_MOST_ANCHORS = 256  # at a position
# a checkpoint's tensors decide these, so a user cannot set them
_IN_TENSORS = (
    "source", "backbone", "num_classes", "fpn_channels", "head_convs", "backbone_norm_groups",
)  # fmt: skip


# a training may choose these besides
_TRAINED = ("fpn_channels", "head_convs", "head_norm_groups")


def _flat(value: Any) -> list[float]:
    """The numbers in a field; none in None."""
    if isinstance(value, tuple):
        return [number for inner in value for number in _flat(inner)]
    return [] if value is None else [value]


def override(variant: Variant, assignments: Sequence[str]) -> Variant:
    """A variant with fields set by text, such as "bn_eps=0" or "std=1,1,1".

    Raises:
        BadInput: there is no such field, or the value is of another kind than the field's.
    """
    return replace(variant, **_parse(variant, assignments, _IN_TENSORS))


def parse_fields(variant: Variant, assignments: Sequence[str]) -> dict[str, Any]:
    """Fields of a model before its training, set by text; width and depth are among them.

    Raises:
        BadInput: as `override`.
    """
    return _parse(variant, assignments, tuple(set(_IN_TENSORS) - set(_TRAINED)))


def _parse(variant: Variant, assignments: Sequence[str], fixed: tuple[str, ...]) -> dict[str, Any]:
    kinds = {f.name: getattr(variant, f.name) for f in fields(variant) if f.name not in fixed}
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in kinds:
            raise BadInput(
                f"{assignment!r} does not set a field of the model",
                fix=f"Fields: {', '.join(kinds)}; engine/model/variant.py explains them",
            )
        changes[name] = _parsed(text, kinds[name], assignment)
    return changes


def _parsed(text: str, like: Any, assignment: str) -> Any:
    try:
        value = as_tuples(json.loads(f"[{text}]" if isinstance(like, tuple) else text))
    except ValueError:
        value = text
    number = isinstance(like, int | float) and not isinstance(like, bool)
    fits = isinstance(value, int | float) and not isinstance(value, bool) if number else None
    if fits is None:
        fits = type(value) is type(like) or like is None
    if not fits:
        raise BadInput(
            f"{assignment!r} has a value of another kind than {like!r}",
            fix="Write numbers as 1e-5, lists as 1,1,1 or [1,2],[3,4], and true or false",
        )
    return float(value) if isinstance(like, float) else value


def as_tuples(value: Any) -> Any:
    """JSON's lists as tuples, at any depth."""
    return tuple(as_tuples(v) for v in value) if isinstance(value, list | tuple) else value
