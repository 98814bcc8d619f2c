"""The first weights of a training: fresh ones, a backbone's, or a whole detector's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant
from retinart.train.model.checkpoint import load_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import RetinaNet, build_retinanet
from retinart.train.model.torch_file import read_torch_file
from retinart.train.settings import DEFAULT_MODEL, TrainSettings

_GROUPS = 16  # of a backbone with GroupNorm: divides every width of every backbone


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a training begins with.

    Attributes:
        model: on the CPU.
        variant: its record.
        notes: a line for each file that weights came from.
    """

    model: RetinaNet
    variant: Variant
    notes: tuple[str, ...] = ()


def start(settings: TrainSettings, classes: Sequence[str]) -> Start:
    """The model that the settings ask for, with its first weights.

    Args:
        classes: the dataset's; a name for each of the K classes.

    Raises:
        BadInput: a name is unknown, or the weights of a file do not fit.
    """
    if settings.weights is not None:
        return _from_detector(settings, settings.weights, classes)
    variant = replace_fields(
        preset(settings.model or DEFAULT_MODEL, len(classes)), settings.overrides
    )
    if settings.norm == "group":
        variant = replace(variant, backbone_norm_groups=_GROUPS)
    model = build_retinanet(variant, prior=settings.prior)
    widen_head_init(model)
    notes = []
    if settings.backbone_weights is not None:
        notes.append(load_backbone(model.backbone, settings.backbone_weights))
    return Start(model=model, variant=variant, notes=tuple(notes))


def empty_start(variant: Variant) -> Start:
    """A model for the weights of a stopped run. It needs no file but the run's checkpoint."""
    return Start(model=build_retinanet(variant), variant=variant)


def replace_fields(variant: Variant, overrides: Mapping[str, Any]) -> Variant:
    """A variant with some fields set. Raises BadInput when there is no such field."""
    try:
        return replace(variant, **overrides)
    except TypeError as error:
        raise BadInput(
            "cannot set a field of the model",
            why=str(error),
            fix=f"Fields: {', '.join(f.name for f in fields(variant))}",
        ) from error


def widen_head_init(model: RetinaNet) -> None:
    """Give the heads' hidden convolutions He et al.'s (2015) spread instead of the paper's 0.01.

    0.01 suits 256 channels and weights from ImageNet. Narrower heads would pass on hardly any
    signal, and a training from scratch would spend its first epochs on that. The output
    convolutions keep their weights, and so the prior.
    """
    for head in (model.cls_head, model.box_head):
        for conv in head.convs:
            nn.init.kaiming_normal_(conv.get_parameter("weight"), nonlinearity="relu")


def load_backbone(backbone: nn.Module, path: Path) -> str:
    """Put ImageNet weights under torchvision's names into a backbone.

    Args:
        backbone: the detector's, which has no classifier `fc`.
        path: a torch file with a state_dict, or with one under "state_dict" or "model".

    Returns:
        A line that says how much was loaded.

    Raises:
        BadInput: the file cannot be read safely, or a weight is missing, unknown or misshapen. Then
            nothing is loaded.
    """
    content = read_torch_file(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise BadInput(
            f"{path} holds no state_dict",
            fix="Save one with torch.save(model.state_dict(), FILE)",
        )
    state = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
        and isinstance(key, str)
        and not key.removeprefix("module.").startswith("fc.")
    }
    wanted = {
        key: value
        for key, value in backbone.state_dict().items()
        if not key.endswith("num_batches_tracked") or key in state
    }
    misfits = [_missing(key, state) for key in wanted if key not in state]
    misfits += [f"{key} is unknown" for key in state if key not in wanted]
    misfits += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if misfits:
        shown = "; ".join(misfits[:8])
        raise BadInput(
            f"the weights in {path} do not fit the backbone",
            why=shown + (f"; and {len(misfits) - 8} more" if len(misfits) > 8 else ""),
            fix="Choose the `model` that they belong to; files of torchvision's classification "
            "models have the names that are expected",
        )
    backbone.load_state_dict(state, strict=False)
    return f"backbone: {len(wanted)} tensors from {path.name}"


def freeze_batch_norms(model: nn.Module) -> None:
    """Keep batch norms constant: they neither learn nor follow the batch."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # SyncBatchNorm too
            module.eval().requires_grad_(False)


def _missing(key: str, state: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, list(state), 1)
    return f"{key} is missing" + (f" (nearest: {near[0]})" if near else "")


def _from_detector(settings: TrainSettings, path: Path, classes: Sequence[str]) -> Start:
    """A trained detector. Classes that it does not know get fresh rows in the class head."""
    for name, given in (("model", settings.model), ("overrides", settings.overrides)):
        if given:
            raise BadInput(
                f"{path} has a {name} of its own", fix=f"Give no `{name}` when you give `weights`"
            )
    if settings.backbone_weights is not None:
        raise BadInput(
            f"{path} has a backbone", fix="Give `weights` or `backbone_weights`, not both"
        )
    trained, old, known = load_checkpoint(path)
    if settings.norm == "group" and not old.backbone_norm_groups:
        raise BadInput(f"{path} has batch norms", fix="Set `norm` to batch or frozen")
    if settings.norm == "frozen" and old.backbone_norm_groups:
        raise BadInput(f"{path} has group norms, not batch norms", fix="Set `norm` to group")
    variant = replace(old, num_classes=len(classes))
    model = build_retinanet(variant, prior=settings.prior)
    state = trained.state_dict()
    fresh = model.cls_head.output.state_dict()
    position = {name: i for i, name in enumerate(known)}
    same = [(new, position[name]) for new, name in enumerate(classes) if name in position]
    for key, value in fresh.items():
        rows = value.view(variant.num_anchors, len(classes), *value.shape[1:]).clone()
        theirs = state[f"cls_head.output.{key}"]
        theirs = theirs.view(variant.num_anchors, len(known), *theirs.shape[1:])
        for new, was in same:
            rows[:, new] = theirs[:, was]
        state[f"cls_head.output.{key}"] = rows.reshape(value.shape)
    model.load_state_dict(state)
    note = f"weights of {path.name}: it knows {len(same)} of {len(classes)} classes"
    return Start(model=model, variant=variant, notes=(note,))


def trainable(model: nn.Module) -> list[torch.nn.Parameter]:
    """The weights that learn."""
    return [p for p in model.parameters() if p.requires_grad]
