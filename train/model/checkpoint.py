"""The project's own checkpoint: weights, variant and class names, without pickled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinart.engine.common.bounded_reading import check_plain
from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant
from retinart.train.model.retinanet import RetinaNet, build_retinanet
from retinart.train.model.torch_file import read_torch_file

FORMAT = "retinart.checkpoint"
VERSION = 1
_RESUME: dict[str, Any] = {
    "rows": list, "best": (int, float), "annotations_sha256": str, "updates": int, "model": dict,
    "optimizer": dict, "scaler": dict,
}  # fmt: skip
_COPY = "Copy it again from where it was written"


def save_checkpoint(
    path: Path,
    *,
    model: RetinaNet,
    variant: Variant,
    classes: Sequence[str],
    training: Mapping[str, Any],
    resume: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint under a temporary name and rename it.

    Args:
        model: its weights are stored on the CPU in their own types.
        classes: a name for each of the K classes.
        training: how the weights came about, in plain JSON types.
        resume: the state that a stopped training needs, in types that `weights_only` admits.
    """
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "variant": variant.to_dict(),
        "classes": list(classes),
        "training": dict(training),
        "state_dict": state,
    }
    if resume is not None:
        content["resume"] = dict(resume)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own text hides the system's reason
            reason = error.__context__
            if not isinstance(reason, OSError):
                raise
            raise BadInput(
                f"cannot write {path}",
                why=reason.strerror or str(reason),
                fix="Make room on its disk; what was written before is kept",
            ) from error


class FinishedRun(BadInput):
    """A run has no epoch left."""


def load_resume_state(path: Path) -> dict[str, Any]:
    """The `resume` state of a checkpoint, with its weights as "average" and its variant.

    Raises:
        FinishedRun: the file's run is finished.
        BadInput: the file cannot be read, or is damaged.
    """
    content = _read_own(path)
    if "resume" not in content:
        raise FinishedRun(
            f"the run of {path} is finished",
            fix="Start a new run from its weights: give them as `weights`",
        )
    if not isinstance(content["resume"], dict):
        raise _damaged(path, "its 'resume' is not of type dict")
    for key, kind in _RESUME.items():
        if not isinstance(content["resume"].get(key), kind):
            raise _damaged(path, f"its 'resume' holds no {key}")
    if not all(isinstance(row, dict) and "seconds" in row for row in content["resume"]["rows"]):
        raise _damaged(path, "its 'resume' holds no rows")
    variant, _ = _described(content, path)
    return {**content["resume"], "average": content["state_dict"], "variant": variant}


def load_checkpoint(path: Path) -> tuple[RetinaNet, Variant, list[str]]:
    """A model in evaluation mode from a file that `save_checkpoint` wrote.

    Raises:
        BadInput: it is not such a file, or a newer version wrote it.
    """
    return from_content(_read_own(path), path)


def is_own(content: object) -> bool:
    """Whether a file's content has the form that `save_checkpoint` writes."""
    if not isinstance(content, Mapping):
        return False
    name = content.get("format")
    return isinstance(name, str) and name == FORMAT


def _read_own(path: Path) -> dict[str, Any]:
    """The content of a file that `save_checkpoint` wrote."""
    content = read_torch_file(path)
    if not is_own(content):
        raise BadInput(
            f"{path} is not a checkpoint of retinart",
            fix="Give a file that `retinart train` wrote",
        )
    found: dict[str, Any] = content
    return found


def from_content(content: Mapping[str, Any], path: Path) -> tuple[RetinaNet, Variant, list[str]]:
    """A model in evaluation mode from a checkpoint's content, see `load_checkpoint`."""
    variant, classes = _described(content, path)
    model, state = empty_model(variant), content["state_dict"]
    wanted = model.state_dict()
    misfits = [f"{key} is missing" for key in wanted if key not in state]
    for key, tensor in state.items():
        if key not in wanted:
            misfits.append(f"{key} is unknown")
        elif wanted[key].shape != tensor.shape:
            misfits.append(f"{key} is {tuple(tensor.shape)}, not {tuple(wanted[key].shape)}")
        elif why := wrong_type(tensor, wanted[key]):
            misfits.append(f"{key} {why}")
    if misfits:
        raise BadInput(
            f"the weights in {path} do not fit its own settings",
            why=several(misfits),
            fix=_COPY,
        )
    return fill_model(model, state).eval(), variant, classes


def empty_model(variant: Variant) -> RetinaNet:
    """A model whose weights have shapes and no memory yet, for `fill_model`."""
    with torch.device("meta"):
        return build_retinanet(variant)


def fill_model(model: RetinaNet, state: Mapping[str, Tensor]) -> RetinaNet:
    """Give an empty model its weights, in float32.

    Args:
        state: tensors of the shapes that the model wants. The counts of batches may be missing.
    """
    weights = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict(weights, strict=False, assign=True)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, name, torch.zeros_like(buffer, device="cpu"))
    return model


def wrong_type(tensor: Tensor, wanted: Tensor) -> str:
    """Why a tensor cannot be the weights that a model wants; "" if it can."""
    if wanted.is_floating_point() and not tensor.is_floating_point():
        return f"is of the type {tensor.dtype}, and weights are floating-point numbers"
    return ""


def several(lines: Sequence[str], most: int = 8) -> str:
    """The first few of many findings, as one text."""
    more = f"; and {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more


def _described(content: Mapping[str, Any], path: Path) -> tuple[Variant, list[str]]:
    """The variant and the class names of a checkpoint whose fields have the right types."""
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise BadInput(
            f"{path} has checkpoint version {version}",
            why=f"this retinart reads versions up to {VERSION}",
            fix="Upgrade retinart",
        )
    kinds = {"version": int, "variant": dict, "classes": list, "state_dict": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise _damaged(path, f"its {key!r} is missing or not of type {kind.__name__}")
    for key, tensor in content["state_dict"].items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise _damaged(path, f"its 'state_dict' holds {key!r}, which is not a named tensor")
    variant = Variant.from_dict(content["variant"], f"the checkpoint {path}")
    classes: list[str] = content["classes"]
    if not all(isinstance(name, str) for name in classes):
        raise _damaged(path, "a class name is not text")
    try:
        check_plain(classes)
    except ValueError as error:
        raise _damaged(path, f"in its class names, {error}") from error
    if len(classes) != variant.num_classes:
        raise _damaged(
            path, f"it names {len(classes)} classes and its model has {variant.num_classes}"
        )
    return variant, classes


def _damaged(path: Path, why: str) -> BadInput:
    return BadInput(f"the checkpoint {path} is damaged", why=why, fix=_COPY)
