"""Whose checkpoint is it? One record a project: how its keys read, and what its RetinaNets do.

Adding a project is adding a record. Nothing else in retinart knows where weights came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinart.engine.model.variant import octave_sizes
from retinart.export import wrappers

BACKBONE_PARTS = r"(conv1|bn1|layer\d)"
INTEGER_SIZES = tuple(tuple(float(int(s)) for s in level) for level in octave_sizes())


@dataclass(frozen=True, kw_only=True)
class Source:
    """A project's checkpoints.

    Attributes:
        name: what users know it by; becomes `Variant.source`.
        signature: a key matching this marks the project's files.
        requires, forbids: some key must match `requires`, none may match `forbids`.
        rename: (pattern, replacement) pairs, of which the first that matches a whole key gives
            its name in `retinart.train.model.retinanet`. The usual form of a key comes first.
        ignore: keys that mean nothing here.
        settings: fields of `Variant` in which the project differs from the defaults.
        tells: reads what a file says besides its weights.
    """

    name: str
    signature: str
    rename: tuple[tuple[str, str], ...]
    requires: str = ""
    forbids: str = ""
    ignore: str = r".*\.num_batches_tracked"
    settings: Mapping[str, Any] = field(default_factory=dict)
    tells: Callable[[Mapping[str, Any]], wrappers.Told] = wrappers.nothing

    def matches(self, keys: list[str]) -> bool:
        """Whether a state dict with these keys is this project's."""

        return not self.lacks(keys) and not (self.forbids and _some(self.forbids, keys))

    def lacks(self, keys: list[str]) -> str:
        """A key that these would have were they this project's, or ""."""
        for pattern in (self.signature, self.requires):
            if not _some(pattern, keys):
                return _filled(pattern, {})
        return ""

    def translate(self, key: str) -> str | None:
        """A key's name in our model; "" when it is to be ignored, None when it is unknown."""
        if re.fullmatch(self.ignore, key):
            return ""
        for pattern, replacement in self.rename:
            if match := re.fullmatch(pattern, key):
                return match.expand(replacement)
        return None

    def original(self, name: str) -> str:
        """The project's key for a name in our model: what `translate` makes that name of.

        Where a key holds a name of the user's choice, it stands as NAME.
        """
        for pattern, replacement in self.rename:
            pieces = re.split(r"\\(\d)", replacement)  # text, group number, text, ...
            form = "(.+)".join(re.escape(text) for text in pieces[::2])
            if match := re.fullmatch(form, name):
                key = _filled(
                    pattern, dict(zip(map(int, pieces[1::2]), match.groups(), strict=True))
                )
                if self.translate(key) == name:
                    return key
        return name


def _some(pattern: str, keys: list[str]) -> bool:
    return not pattern or any(re.fullmatch(pattern, key) for key in keys)


def _filled(pattern: str, groups: Mapping[int, str]) -> str:
    """A key that a pattern of this file matches, with these contents of its groups."""
    starts = [match.start() for match in re.finditer(r"\((?!\?)", pattern)]
    for number in sorted(groups, reverse=True):  # from the right, so that starts stay true
        start, depth = starts[number - 1], 0
        for end in range(start, len(pattern)):
            depth += {"(": 1, ")": -1}.get(pattern[end], 0)
            if depth == 0:
                break
        pattern = f"{pattern[:start]}{groups[number]}{pattern[end + 1 :]}"
    return pattern.replace(r"\w+", "NAME").replace(r"\.", ".")


_TORCHVISION_COMMON = (
    (r"backbone\.body\.(.+)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(\w+)", r"fpn.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(\w+)", r"fpn.output.\1.\2"),
    (r"backbone\.fpn\.extra_blocks\.(p[67])\.(\w+)", r"fpn.\1.\2"),
    (r"head\.classification_head\.cls_logits\.(\w+)", r"cls_head.output.\1"),
    (r"head\.regression_head\.bbox_reg\.(\w+)", r"box_head.output.\1"),
)
_TORCHVISION_FPN_BEFORE_0_13 = (
    (r"backbone\.fpn\.inner_blocks\.(\d)\.(\w+)", r"fpn.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d)\.(\w+)", r"fpn.output.\1.\2"),
)
_TORCHVISION_HEADS = (
    (r"head\.classification_head\.conv\.(\d)\.0\.(\w+)", r"cls_head.convs.\1.\2"),
    (r"head\.classification_head\.conv\.(\d)\.1\.(\w+)", r"cls_head.norms.\1.\2"),
    (r"head\.regression_head\.conv\.(\d)\.0\.(\w+)", r"box_head.convs.\1.\2"),
    (r"head\.regression_head\.conv\.(\d)\.1\.(\w+)", r"box_head.norms.\1.\2"),
)


def _every_second(prefix: str, target: str) -> tuple[tuple[str, str], ...]:
    """Convolutions at 0, 2, 4 and 6 of a Sequential with ReLUs between them."""
    return tuple((rf"{prefix}\.{2 * i}\.(\w+)", rf"{target}.{i}.\1") for i in range(4))


_TORCHVISION = {
    "anchor_sizes": INTEGER_SIZES,
    "anchor_rounding": True,
    "anchor_strides": "image//grid",
    "detections_per_img": 300,
}
_HEAD_CONV = r"head\.classification_head\.conv"

SOURCES: tuple[Source, ...] = (
    Source(  # module version 1: with FrozenBatchNorm2d, whose eps the released weights set to 0
        name="torchvision retinanet_resnet50_fpn (before 0.13)",
        signature=r"head\.classification_head\.cls_logits\.weight",
        requires=rf"{_HEAD_CONV}\.6\.weight",
        rename=_TORCHVISION_FPN_BEFORE_0_13
        + _TORCHVISION_COMMON
        + _every_second(_HEAD_CONV, "cls_head.convs")
        + _every_second(r"head\.regression_head\.conv", "box_head.convs"),
        settings={**_TORCHVISION, "p6_from": "p5", "bn_eps": 0.0},
    ),
    Source(
        name="torchvision retinanet_resnet50_fpn",
        signature=r"head\.classification_head\.cls_logits\.weight",
        requires=rf"{_HEAD_CONV}\.0\.0\.weight",
        forbids=rf"{_HEAD_CONV}\.0\.1\.weight",
        rename=_TORCHVISION_COMMON + _TORCHVISION_FPN_BEFORE_0_13 + _TORCHVISION_HEADS,
        settings={**_TORCHVISION, "p6_from": "p5"},
    ),
    Source(
        name="torchvision retinanet_resnet50_fpn_v2",
        signature=r"head\.classification_head\.cls_logits\.weight",
        requires=rf"{_HEAD_CONV}\.0\.1\.weight",
        rename=_TORCHVISION_COMMON + _TORCHVISION_FPN_BEFORE_0_13 + _TORCHVISION_HEADS,
        settings={**_TORCHVISION, "head_norm_groups": 32},
    ),
    Source(
        name="detectron2",
        signature=r"backbone\.bottom_up\.stem\.conv1\.weight",
        requires=r"head\.cls_score\.weight",
        rename=(
            (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.bn1.\1"),
            (r"backbone\.bottom_up\.stem\.conv1\.weight", r"backbone.conv1.weight"),
            *(
                (
                    rf"backbone\.bottom_up\.res{stage}\.(\d+)\.{theirs}\.(\w+)",
                    rf"backbone.layer{stage - 1}.\1.{ours}.\2",
                )
                for stage in range(2, 6)
                for theirs, ours in (
                    ("shortcut", "downsample.0"),
                    (r"shortcut\.norm", "downsample.1"),
                    *((f"conv{i}", f"conv{i}") for i in (1, 2, 3)),
                    *((rf"conv{i}\.norm", f"bn{i}") for i in (1, 2, 3)),
                )
            ),
            *(
                (rf"backbone\.fpn_{part}{i + 3}\.(\w+)", rf"fpn.{part}.{i}.\1")
                for part in ("lateral", "output")
                for i in range(3)
            ),
            (r"backbone\.top_block\.(p[67])\.(\w+)", r"fpn.\1.\2"),
            *_every_second(r"head\.cls_subnet", "cls_head.convs"),
            *_every_second(r"head\.bbox_subnet", "box_head.convs"),
            (r"head\.cls_score\.(\w+)", r"cls_head.output.\1"),
            (r"head\.bbox_pred\.(\w+)", r"box_head.output.\1"),
        ),
        ignore=r"pixel_mean|pixel_std|anchor_generator\..*|.*\.num_batches_tracked",
        settings={
            "stride_in_1x1": True,
            "mean": (103.53, 116.28, 123.675),
            "std": (1.0, 1.0, 1.0),
            "channel_order": "bgr",
            "anchor_order": "size_outer",
            "clip_before_nms": False,
        },
        tells=wrappers.detectron2,
    ),
    Source(
        name="mmdetection",
        signature=r"bbox_head\.retina_cls\.weight",
        rename=(
            (rf"backbone\.({BACKBONE_PARTS}\..+)", r"backbone.\1"),
            (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"fpn.lateral.\1.\2"),
            (r"neck\.fpn_convs\.([012])\.conv\.(\w+)", r"fpn.output.\1.\2"),
            (r"neck\.fpn_convs\.3\.conv\.(\w+)", r"fpn.p6.\1"),
            (r"neck\.fpn_convs\.4\.conv\.(\w+)", r"fpn.p7.\1"),
            (r"bbox_head\.cls_convs\.(\d)\.conv\.(\w+)", r"cls_head.convs.\1.\2"),
            (r"bbox_head\.reg_convs\.(\d)\.conv\.(\w+)", r"box_head.convs.\1.\2"),
            (r"bbox_head\.retina_cls\.(\w+)", r"cls_head.output.\1"),
            (r"bbox_head\.retina_reg\.(\w+)", r"box_head.output.\1"),
        ),
        settings={"p7_relu": False, "box_clamp_below": True},
        tells=wrappers.mmdetection,
    ),
    Source(
        name="odtk",
        signature=r"backbones\.\w+\.pyramid6\.weight",
        rename=(
            (rf"backbones\.\w+\.features\.({BACKBONE_PARTS}\..+)", r"backbone.\1"),
            *(
                (rf"backbones\.\w+\.lateral{i + 3}\.(\w+)", rf"fpn.lateral.{i}.\1")
                for i in range(3)
            ),
            *((rf"backbones\.\w+\.smooth{i + 3}\.(\w+)", rf"fpn.output.{i}.\1") for i in range(3)),
            (r"backbones\.\w+\.pyramid([67])\.(\w+)", r"fpn.p\1.\2"),
            *_every_second("cls_head", "cls_head.convs"),
            *_every_second("box_head", "box_head.convs"),
            (r"(cls|box)_head\.8\.(\w+)", r"\1_head.output.\2"),
        ),
        ignore=r".*\.num_batches_tracked|.*\.features\.fc\.\w+",
        settings={
            "pad_multiple": 128,
            "anchor_ratios": (1.0, 2.0, 0.5),
            "anchor_order": "size_outer",
            "anchor_center": 0.5,
            "box_clamp": None,
            "box_plus_one": True,
            "clip_to": "input",
        },
        tells=wrappers.odtk,
    ),
)
