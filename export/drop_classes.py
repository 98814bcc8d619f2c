"""Classes that a checkpoint never predicts are left out of the file: fewer channels to compute.

torchvision's published RetinaNets have a channel for each COCO category id from 0 to 90, and COCO
uses 80 of these. The channels of a class take a 91st of the largest layer, and of all that reads
it, up to NMS. Names alone do not show that a class is unused: any model of 91 classes gets COCO's
names by their number. So `unused_classes` asks for a published file, or for names that say so.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import COCO_91, UNUSED_NAMES
from retinart.engine.model.info import ModelInfo
from retinart.engine.model.variant import Variant
from retinart.export.settings import ExportSettings
from retinart.train.model.retinanet import RetinaNet

# How the SHA-256 begins of retinanet_resnet50_fpn_coco and retinanet_resnet50_fpn_v2_coco. It is in
# the files' names, torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights and _V2_Weights.
_PUBLISHED = ("eeacb38b", "5905b1c5")


def dropped_classes(
    classes: Sequence[str], settings: ExportSettings, checkpoint_sha256: str
) -> tuple[int, ...]:
    """Indices of the classes that the settings leave out, rising.

    Args:
        classes: all names, in the order of the checkpoint's outputs.
        checkpoint_sha256: of the checkpoint's file.

    Raises:
        BadInput: an entry of the list names no class, or no class is left.
    """
    choice = settings.drop_classes.strip()
    if choice == "none":
        return ()
    if choice == "unused":
        told = settings.classes is not None or checkpoint_sha256.startswith(_PUBLISHED)
        return unused_classes(classes) if told else ()
    found: set[int] = set()
    for entry in (e.strip() for e in choice.split(",")):
        alike = {i for i, name in enumerate(classes) if name == entry}
        if not alike and entry.isdecimal() and int(entry) < len(classes):
            alike = {int(entry)}
        if not alike:
            raise BadInput(
                f"`drop_classes` holds {entry!r}",
                why=f"the checkpoint has {len(classes)} classes, and none of this name or index",
                fix="Give indices from 0 on, or names, with commas between",
            )
        found |= alike
    if len(found) == len(classes):
        raise BadInput("`drop_classes` leaves no class", fix="Leave out fewer classes")
    return tuple(sorted(found))


def unused_classes(classes: Sequence[str]) -> tuple[int, ...]:
    """Indices of the names that stand for no class; none if no other name is there."""
    unused = tuple(i for i, name in enumerate(classes) if name in UNUSED_NAMES)
    return unused if len(unused) < len(classes) else ()


def may_be_unused(info: ModelInfo) -> bool:
    """Whether a file has classes that torchvision's published weights never predict."""
    return not info.dropped_classes and tuple(info.classes) == COCO_91


def without_classes(model: RetinaNet, variant: Variant, dropped: Sequence[int]) -> RetinaNet:
    """A copy of a model without the channels of some classes.

    Args:
        variant: of the model as it is.
        dropped: indices of classes.
    """
    rows = _rows(variant.num_anchors, variant.num_classes, dropped)
    pruned = copy.deepcopy(model)
    output = pruned.cls_head.output
    with torch.no_grad():
        output.weight = torch.nn.Parameter(output.weight[rows])
        assert output.bias is not None
        output.bias = torch.nn.Parameter(output.bias[rows])
    output.out_channels = len(rows)
    return pruned


def kept_channels(logits: Sequence[Tensor], info: ModelInfo) -> list[Tensor]:
    """Of logits (N, A * all classes, Hi, Wi) those channels that a file has."""
    if not info.dropped_classes:
        return list(logits)
    rows = _rows(info.variant.num_anchors, len(info.classes), info.dropped_classes)
    return [level[:, rows] for level in logits]


def _rows(anchors: int, classes: int, dropped: Sequence[int]) -> Tensor:
    """The channels that stay, of channels ordered (anchor, class)."""
    keep = torch.ones(anchors, classes, dtype=torch.bool)
    keep[:, list(dropped)] = False
    return keep.flatten().nonzero()[:, 0]
