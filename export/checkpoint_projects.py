"""The projects whose checkpoints retinart reads: their tensors' names, and what their models do.

Adding a project is adding a record here. Nothing else in retinart knows where weights came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinart.engine.model.variant import octave_sizes
from retinart.export import file_settings, key_templates

INTEGER_SIZES = tuple(tuple(float(int(s)) for s in level) for level in octave_sizes())
_BATCH_COUNTS = "{rest}.num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Project:
    """One project's checkpoints. Names of tensors are templates, see `key_templates`.

    Attributes:
        name: what users know it by; becomes `Variant.source`.
        signature: a tensor that marks the project's files.
        requires, forbids: another one that must be there, and one that must not; "" for none.
        rename: pairs of templates: theirs, and the name in `retinart.train.model.retinanet`. The
            first that fits counts, and the form that the project writes today comes first.
        ignore: tensors that mean nothing here.
        settings: fields of `Variant` in which the project differs from the defaults.
        read_settings: reads what a file says besides its weights.
        left_open: fields of `Variant` that a file with frozen norms does not tell, and that differ
            among the project's models.
    """

    name: str
    signature: str
    rename: tuple[tuple[str, str], ...]
    requires: str = ""
    forbids: str = ""
    ignore: tuple[str, ...] = (_BATCH_COUNTS,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    read_settings: Callable[[Mapping[str, Any]], file_settings.FileSettings] = file_settings.none
    left_open: tuple[str, ...] = ()

    def matches(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys is this project's."""
        keys = list(keys)
        return not self.lacks(keys) and not (self.forbids and _holds(keys, self.forbids))

    def lacks(self, keys: Iterable[str]) -> str:
        """A key that this project's checkpoints have and these lack, or ""."""
        keys = list(keys)
        for template in (self.signature, self.requires):
            if template and not _holds(keys, template):
                return key_templates.write(template, {})
        return ""

    def translate(self, key: str) -> str | None:
        """A key's name in our model; "" for one to ignore, None for an unknown one."""
        if any(key_templates.read(template, key) is not None for template in self.ignore):
            return ""
        for theirs, ours in self.rename:
            if (name := key_templates.rename(key, theirs, ours)) is not None:
                return name
        return None

    def original(self, name: str) -> str:
        """The project's key for a name in our model, the reverse of `translate`.

        NAME stands where a key holds a name of the user's choice. A name that the project has no
        key for stays as it is.
        """
        for theirs, ours in self.rename:
            if (key := key_templates.rename(name, ours, theirs)) is not None:
                return key
        return name


def _holds(keys: Iterable[str], template: str) -> bool:
    return any(key_templates.read(template, key) is not None for key in keys)


_TORCHVISION_COMMON = (
    ("backbone.body.{rest}", "backbone.{rest}"),
    ("backbone.fpn.inner_blocks.{i}.0.{key}", "fpn.lateral.{i}.{key}"),
    ("backbone.fpn.layer_blocks.{i}.0.{key}", "fpn.output.{i}.{key}"),
    ("backbone.fpn.extra_blocks.p{high}.{key}", "fpn.p{high}.{key}"),
    ("head.classification_head.cls_logits.{key}", "cls_head.output.{key}"),
    ("head.regression_head.bbox_reg.{key}", "box_head.output.{key}"),
)
_TORCHVISION_FPN_BEFORE_0_13 = (
    ("backbone.fpn.inner_blocks.{i}.{key}", "fpn.lateral.{i}.{key}"),
    ("backbone.fpn.layer_blocks.{i}.{key}", "fpn.output.{i}.{key}"),
)
_TORCHVISION_HEADS = (
    ("head.classification_head.conv.{i}.0.{key}", "cls_head.convs.{i}.{key}"),
    ("head.classification_head.conv.{i}.1.{key}", "cls_head.norms.{i}.{key}"),
    ("head.regression_head.conv.{i}.0.{key}", "box_head.convs.{i}.{key}"),
    ("head.regression_head.conv.{i}.1.{key}", "box_head.norms.{i}.{key}"),
)


def _every_second(prefix: str, target: str) -> tuple[tuple[str, str], ...]:
    """Convolutions at 0, 2, 4 and 6 of a Sequential with ReLUs between them."""
    return tuple((f"{prefix}.{2 * i}.{{key}}", f"{target}.{i}.{{key}}") for i in range(4))


_TORCHVISION = {
    "interpolation": "float",
    "size_rounding": "float_floor",
    "anchor_sizes": INTEGER_SIZES,
    "anchor_rounding": True,
    "anchor_strides": "image//grid",
    "detections_per_img": 300,
}
_HEAD_CONV = "head.classification_head.conv"

PROJECTS: tuple[Project, ...] = (
    Project(  # module version 1: with FrozenBatchNorm2d, whose eps the released weights set to 0
        name="torchvision retinanet_resnet50_fpn (before 0.13)",
        signature="head.classification_head.cls_logits.weight",
        requires=f"{_HEAD_CONV}.6.weight",
        rename=_TORCHVISION_FPN_BEFORE_0_13
        + _TORCHVISION_COMMON
        + _every_second(_HEAD_CONV, "cls_head.convs")
        + _every_second("head.regression_head.conv", "box_head.convs"),
        settings={**_TORCHVISION, "p6_from": "p5", "bn_eps": 0.0},
    ),
    Project(
        name="torchvision retinanet_resnet50_fpn",
        signature="head.classification_head.cls_logits.weight",
        requires=f"{_HEAD_CONV}.0.0.weight",
        forbids=f"{_HEAD_CONV}.0.1.weight",
        rename=_TORCHVISION_COMMON + _TORCHVISION_FPN_BEFORE_0_13 + _TORCHVISION_HEADS,
        settings={**_TORCHVISION, "p6_from": "p5"},
        left_open=("bn_eps",),  # 0 in models that began from the released weights
    ),
    Project(
        name="torchvision retinanet_resnet50_fpn_v2",
        signature="head.classification_head.cls_logits.weight",
        requires=f"{_HEAD_CONV}.0.1.weight",
        rename=_TORCHVISION_COMMON + _TORCHVISION_FPN_BEFORE_0_13 + _TORCHVISION_HEADS,
        settings={**_TORCHVISION, "head_norm_groups": 32},
    ),
    Project(
        name="detectron2",
        signature="backbone.bottom_up.stem.conv1.weight",
        requires="head.cls_score.weight",
        rename=(
            ("backbone.bottom_up.stem.conv1.norm.{key}", "backbone.bn1.{key}"),
            ("backbone.bottom_up.stem.conv1.weight", "backbone.conv1.weight"),
            *(
                (
                    f"backbone.bottom_up.res{stage}.{{block}}.{theirs}.{{key}}",
                    f"backbone.layer{stage - 1}.{{block}}.{ours}.{{key}}",
                )
                for stage in range(2, 6)
                for theirs, ours in (
                    ("shortcut", "downsample.0"),
                    ("shortcut.norm", "downsample.1"),
                    *((f"conv{i}", f"conv{i}") for i in (1, 2, 3)),
                    *((f"conv{i}.norm", f"bn{i}") for i in (1, 2, 3)),
                )
            ),
            *(
                (f"backbone.fpn_{part}{i + 3}.{{key}}", f"fpn.{part}.{i}.{{key}}")
                for part in ("lateral", "output")
                for i in range(3)
            ),
            ("backbone.top_block.p{high}.{key}", "fpn.p{high}.{key}"),
            *_every_second("head.cls_subnet", "cls_head.convs"),
            *_every_second("head.bbox_subnet", "box_head.convs"),
            ("head.cls_score.{key}", "cls_head.output.{key}"),
            ("head.bbox_pred.{key}", "box_head.output.{key}"),
        ),
        ignore=("pixel_mean", "pixel_std", "anchor_generator.{rest}", _BATCH_COUNTS),
        settings={
            "stride_in_1x1": True,
            "mean": (103.53, 116.28, 123.675),
            "std": (1.0, 1.0, 1.0),
            "channel_order": "bgr",
            "interpolation": "pillow",
            "size_rounding": "nearest",
            "anchor_order": "size_outer",
            "clip_before_nms": False,
        },
        read_settings=file_settings.detectron2,
    ),
    Project(
        name="mmdetection",
        signature="bbox_head.retina_cls.weight",
        rename=(
            ("backbone.{part}.{rest}", "backbone.{part}.{rest}"),
            ("neck.lateral_convs.{i}.conv.{key}", "fpn.lateral.{i}.{key}"),
            ("neck.fpn_convs.{first}.conv.{key}", "fpn.output.{first}.{key}"),
            ("neck.fpn_convs.3.conv.{key}", "fpn.p6.{key}"),
            ("neck.fpn_convs.4.conv.{key}", "fpn.p7.{key}"),
            ("bbox_head.cls_convs.{i}.conv.{key}", "cls_head.convs.{i}.{key}"),
            ("bbox_head.reg_convs.{i}.conv.{key}", "box_head.convs.{i}.{key}"),
            ("bbox_head.retina_cls.{key}", "cls_head.output.{key}"),
            ("bbox_head.retina_reg.{key}", "box_head.output.{key}"),
        ),
        settings={"size_rounding": "nearest", "p7_relu": False, "box_clamp_below": True},
        read_settings=file_settings.mmdetection,
    ),
    Project(
        name="odtk",
        signature="backbones.{NAME}.pyramid6.weight",
        rename=(
            ("backbones.{NAME}.features.{part}.{rest}", "backbone.{part}.{rest}"),
            *(
                (f"backbones.{{NAME}}.{theirs}{i + 3}.{{key}}", f"fpn.{ours}.{i}.{{key}}")
                for theirs, ours in (("lateral", "lateral"), ("smooth", "output"))
                for i in range(3)
            ),
            ("backbones.{NAME}.pyramid{high}.{key}", "fpn.p{high}.{key}"),
            *_every_second("cls_head", "cls_head.convs"),
            *_every_second("box_head", "box_head.convs"),
            ("{head}_head.8.{key}", "{head}_head.output.{key}"),
        ),
        ignore=(_BATCH_COUNTS, "{rest}.features.fc.{key}"),
        settings={
            "interpolation": "pillow",
            "size_rounding": "float_floor",
            "pad_multiple": 128,
            "anchor_ratios": (1.0, 2.0, 0.5),
            "anchor_order": "size_outer",
            "anchor_center": 0.5,
            "box_clamp": None,
            "box_plus_one": True,
            "clip_to": "input",
        },
        read_settings=file_settings.odtk,
    ),
)
