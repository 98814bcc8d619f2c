"""The project's own checkpoint: weights, variant and class names, without pickled code."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from retinart.engine.common.files import atomic_path
from retinart.engine.errors import BadInput
from retinart.engine.model.variant import Variant
from retinart.train.model.retinanet import RetinaNet, build_retinanet

FORMAT = "retinart.checkpoint"
VERSION = 1


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
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def read_torch_file(path: Path) -> Any:
    """The content of a torch file, read with `weights_only` so that no code in it runs.

    Raises:
        BadInput: the file is missing, truncated, not a torch file, or wants to run code.
    """
    if not path.is_file():
        raise BadInput(f"there is no checkpoint at {path}", fix="Check the path")
    if kind := _other_kind(path):
        raise BadInput(f"{path} is {kind[0]}, not a checkpoint", fix=kind[1])
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"refused to read the checkpoint {path}",
            why=f"it is damaged, or wants to call {_unsafe_name(error)}",
            fix="A checkpoint may hold tensors, numbers, strings, lists and dicts only; if you "
            "trust it, load it yourself and save its state_dict alone",
        ) from error
    except Exception as error:  # bytes that are not a pickle may raise any exception
        raise BadInput(
            f"cannot read the checkpoint {path}",
            why=f"it is truncated or not a torch file ({_first_line(error)})",
            fix="Copy or download it again and compare its size",
        ) from error


def _other_kind(path: Path) -> tuple[str, str] | None:
    """The kind of a file that people may take for a checkpoint, and what to do with it."""
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix == ".onnx":
        return "an ONNX model", "Export from the checkpoint that it was made from"
    if path.suffix == ".safetensors" or (head[8:] == b"{" and head[4:8] == bytes(4)):
        return (
            "a safetensors file",
            "Save what it holds with torch.save(safetensors.torch.load_file(FILE), 'model.pth')",
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return (
                    "a TorchScript program",
                    "Save its weights with torch.save(torch.jit.load(FILE).state_dict(), "
                    "'model.pth')",
                )
    return None


def load_resume_state(path: Path) -> dict[str, Any]:
    """The `resume` state of a checkpoint, with its weights as "average" and its variant.

    Raises:
        BadInput: the file cannot be read, or its run is finished.
    """
    content = _read_own(path)
    if "resume" not in content:
        raise BadInput(
            f"the run of {path} is finished",
            fix="Start a new run from its weights: give them as `weights`",
        )
    variant = Variant.from_dict(content["variant"])
    return {**content["resume"], "average": content["state_dict"], "variant": variant}


def load_checkpoint(path: Path) -> tuple[RetinaNet, Variant, list[str]]:
    """A model in evaluation mode from a file that `save_checkpoint` wrote.

    Raises:
        BadInput: it is not such a file, or a newer version wrote it.
    """
    return from_content(_read_own(path), path)


def _read_own(path: Path) -> dict[str, Any]:
    """The content of a file that `save_checkpoint` wrote."""
    content = read_torch_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(
            f"{path} is not a checkpoint of retinart",
            fix="Give a file that `retinart train` wrote",
        )
    return content


def from_content(content: Mapping[str, Any], path: Path) -> tuple[RetinaNet, Variant, list[str]]:
    """A model in evaluation mode from a checkpoint's content, see `load_checkpoint`."""
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
            raise BadInput(
                f"the checkpoint {path} is damaged",
                why=f"its {key!r} is missing or not of type {kind.__name__}",
                fix="Copy it again from where it was written",
            )
    variant = Variant.from_dict(content["variant"])
    classes = [str(name) for name in content["classes"]]
    if len(classes) != variant.num_classes:
        raise BadInput(
            f"the checkpoint {path} is damaged",
            why=f"it names {len(classes)} classes and its model has {variant.num_classes}",
            fix="Copy it again from where it was written",
        )
    model = build_retinanet(variant)
    try:
        model.load_state_dict(content["state_dict"], strict=True)
    except RuntimeError as error:
        raise BadInput(
            f"the weights in {path} do not fit its own settings",
            why=str(error),
            fix="Copy it again from where it was written",
        ) from error
    return model.eval(), variant, classes


def _unsafe_name(error: pickle.UnpicklingError) -> str:
    """What PyTorch's message says that the file wanted, such as `os.system`."""
    found = re.search(r"(?:GLOBAL|class|type|function)\s+[`'\"]?(\w+(?:\.\w+)+)", str(error))
    return found.group(1) if found else "something other than tensors and containers"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
