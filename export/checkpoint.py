"""Any RetinaNet checkpoint as a model of ours: recognised from its keys, loaded whole or not."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinart.engine.errors import BadInput
from retinart.engine.variant import Variant, override
from retinart.export.array_pickle import load_arrays
from retinart.export.coco_names import default_names
from retinart.export.sources import SOURCES, Source
from retinart.train.checkpoint import FORMAT, from_content, read_torch_file
from retinart.train.resnet import BACKBONES, BackboneSpec
from retinart.train.retinanet import RetinaNet, build_retinanet

# projects wrap the state dict under one of these
WRAPPERS = ("model", "state_dict")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint's content.

    Attributes:
        model: in evaluation mode, on the CPU.
        variant: the project's conventions and the sizes found in the file.
        classes: K names.
    """

    model: RetinaNet
    variant: Variant
    classes: tuple[str, ...]


def load_any(path: Path, *, settings: Sequence[str] = ()) -> Loaded:
    """Read a checkpoint of ours, torchvision, detectron2, mmdetection or odtk.

    Args:
        settings: fields of `Variant`, as "name=value", in which the file differs from what its
            project does by default and which its tensors do not tell.

    Raises:
        BadInput: the file is missing, truncated, wants to run code, is of none of these projects,
            or its keys or shapes are not what that project's RetinaNets have.
    """
    content = _read(path)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        if settings:
            raise BadInput(
                f"{path} says all of its settings itself", fix="Leave them out for this file"
            )
        model, variant, classes = from_content(content, path)
        return Loaded(model=model, variant=variant, classes=tuple(classes))
    state = _state_dict(content, path)
    source = recognise(state, path)
    return load_state_dict(state, source, path, settings=settings)


def recognise(state: Mapping[str, Tensor], path: Path) -> Source:
    """The project whose keys these are.

    Raises:
        BadInput: they are nobody's.
    """
    keys = list(state)
    for source in SOURCES:
        if source.matches(keys):
            return source
    parts = sorted({".".join(key.split(".")[:2]) for key in keys})
    raise BadInput(
        f"{path} is not a RetinaNet checkpoint that retinart knows",
        why=f"its {len(keys)} tensors are called {', '.join(parts[:8])}"
        + (" ..." if len(parts) > 8 else ""),
        fix=f"Known are: retinart, {', '.join(s.name for s in SOURCES)}",
    )


def load_state_dict(
    state: Mapping[str, Tensor], source: Source, path: Path, *, settings: Sequence[str] = ()
) -> Loaded:
    """Build the model that the tensors fit and load them, all or nothing."""
    renamed: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    unexpected = []
    for key, tensor in state.items():
        name = source.translate(key)
        if name is None:
            unexpected.append(key)
        elif name:
            renamed[name], theirs[name] = tensor.float(), key
    variant = override(_variant(renamed, source, path), settings)
    model = build_retinanet(variant)
    expected = {
        k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    missing = [key for key in expected if key not in renamed]
    unexpected += [theirs[name] for name in renamed if name not in expected]
    shapes = [
        f"{theirs[k]}: {_shape(renamed[k])}, expected {_shape(v)}"
        for k, v in expected.items()
        if k in renamed and renamed[k].shape != v.shape
    ]
    if missing or unexpected or shapes:
        raise BadInput(
            f"{path} looks like {source.name}, but its tensors do not fit",
            why=_differences(missing, unexpected, shapes),
            fix="Nothing was loaded. Export from the file that the project itself saved",
        )
    model.load_state_dict(renamed, strict=False)
    return Loaded(model=model.eval(), variant=variant, classes=default_names(variant.num_classes))


def _read(path: Path) -> Any:
    if path.suffix != ".pkl" or not path.is_file():
        return read_torch_file(path)
    try:
        return load_arrays(path.read_bytes())
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"cannot read the checkpoint {path}",
            why=str(error),
            fix="A pickled checkpoint may hold NumPy arrays of numbers, and nothing else",
        ) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The dict of tensors in a file's content, whichever wrapper is round it."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping):
        state = {
            str(k): torch.from_numpy(v.astype(v.dtype.newbyteorder("=")))
            if isinstance(v, np.ndarray)
            else v
            for k, v in content.items()
        }
        state = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        if state:
            return {k.removeprefix("module."): v for k, v in state.items()}
    raise BadInput(
        f"{path} holds no state dict",
        why=f"its content is a {type(content).__name__} without tensors",
        fix="Save model.state_dict() with torch.save",
    )


def _variant(state: Mapping[str, Tensor], source: Source, path: Path) -> Variant:
    """The project's settings with the sizes that the tensors have."""
    try:
        outputs = state["cls_head.output.weight"].shape[0]
        anchors = state["box_head.output.weight"].shape[0] // 4
        channels = state["fpn.lateral.0.weight"].shape[0]
        convs = sum(k.startswith("cls_head.convs") and k.endswith(".weight") for k in state)
        backbone = _backbone(state)
    except KeyError as error:
        raise BadInput(
            f"{path} looks like {source.name}, but a tensor is missing", why=f"no {error}"
        ) from error
    variant = Variant(
        source=source.name,
        backbone=backbone,
        num_classes=outputs // anchors,
        fpn_channels=channels,
        head_convs=convs,
        **source.settings,
    )
    if variant.num_anchors != anchors:
        raise BadInput(
            f"{path} has {anchors} anchors at a position",
            why=f"{source.name} has {variant.num_anchors}, and a file of weights does not say the "
            "sizes and ratios of others",
            fix="Train or convert with the project's default anchors",
        )
    return variant


def _backbone(state: Mapping[str, Tensor]) -> str:
    depths = tuple(
        len({k.split(".")[2] for k in state if k.startswith(f"backbone.layer{i}.")})
        for i in range(1, 5)
    )
    shape = tuple(state["backbone.layer1.0.conv2.weight"].shape[:2])
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    for name, spec in BACKBONES.items():
        if (spec.depths, spec.bottleneck, _conv2_shape(spec)) == (depths, bottleneck, shape):
            return name
    raise BadInput(
        f"the checkpoint's backbone is none that retinart knows: blocks {depths}, "
        f"{'bottleneck' if bottleneck else 'basic'}, second convolution {shape}",
        fix=f"Known are: {', '.join(BACKBONES)}",
    )


def _conv2_shape(spec: BackboneSpec) -> tuple[int, int]:
    if not spec.bottleneck:
        return spec.width, spec.width
    width = spec.width * spec.width_per_group // 64 * spec.groups
    return width, width // spec.groups


def _differences(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    lines = [""]
    for key in missing:
        near = difflib.get_close_matches(key, unexpected, n=1, cutoff=0.4)
        lines.append(
            f"  missing     {key}" + (f" (nearest in the file: {near[0]})" if near else "")
        )
    lines += [f"  unexpected  {key}" for key in unexpected]
    lines += [f"  misshapen   {text}" for text in shapes]
    return "\n".join(lines)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "scalar"
