"""Any RetinaNet checkpoint as a model of ours: recognised by its keys, loaded whole."""

from __future__ import annotations

import difflib
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinart.engine.common.bounded_reading import MIB, check_regular, read_bytes
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_names import default_names
from retinart.engine.model.variant import Variant, override
from retinart.export.array_pickle import check_arrays, load_arrays
from retinart.export.checkpoint_projects import PROJECTS, Project
from retinart.export.file_settings import FileSettings
from retinart.train.model.backbones import BACKBONES, BackboneSpec
from retinart.train.model.checkpoint import (
    empty_model,
    fill_model,
    from_content,
    is_own,
    wrong_type,
)
from retinart.train.model.retinanet import RetinaNet
from retinart.train.model.torch_file import read_torch_file

# keys under which projects put the state dict
WRAPPERS = ("model", "state_dict")
_MOST = 1024 * MIB  # of a pickle of arrays, of which reading it takes three times as much
_COMPARED = 50_000  # pairs of keys up to which the nearest ones are looked for
_LONG = 200  # letters of a key from which on nothing is compared with it
_LISTED = 1000  # differences that an error lists
# tensors of our model that show a network's sizes
_SIZES = (
    "cls_head.output.weight",
    "box_head.output.weight",
    "fpn.lateral.0.weight",
    "backbone.layer1.0.conv2.weight",
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint's content.

    Attributes:
        model: in evaluation mode, on the CPU.
        variant: the project's conventions, and the sizes of the file's tensors.
        classes: K names.
        trained_at: (height, width) of the training's images, where the file tells it.
        assumed: fields of the variant that neither the file nor the user tells.
    """

    model: RetinaNet
    variant: Variant
    classes: tuple[str, ...]
    trained_at: tuple[int, int] | None = None
    assumed: tuple[str, ...] = ()


def load_any(path: Path, *, settings: Sequence[str] = ()) -> Loaded:
    """Read a checkpoint of ours, torchvision, detectron2, mmdetection or odtk.

    Args:
        settings: fields of `Variant`, as "name=value", in which the file differs from its project's
            defaults and which its tensors leave open.

    Raises:
        BadInput: the file is missing or truncated, wants to run code, or comes from none of these
            projects; or its keys or shapes differ from the project's RetinaNets.
    """
    content = _read(path)
    if is_own(content):
        if settings:
            raise BadInput(f"{path} holds all of its settings", fix="Give none for this file")
        model, variant, classes = from_content(content, path)
        return Loaded(
            model=model,
            variant=variant,
            classes=tuple(classes),
            trained_at=_trained_at(content, math.lcm(32, variant.pad_multiple)),
        )
    state = _state_dict(content, path)
    project = recognise(state, path)
    found = FileSettings()
    if isinstance(content, Mapping):
        found = project.read_settings(content)
    return load_state_dict(state, project, path, found=found, settings=settings)


def _trained_at(content: Mapping[str, Any], multiple: int) -> tuple[int, int] | None:
    """The size that one of our checkpoints was trained at, if an input can have it."""
    training = content.get("training")
    settings = training.get("settings") if isinstance(training, Mapping) else None
    size = settings.get("size") if isinstance(settings, Mapping) else None
    if not isinstance(size, list | tuple) or len(size) != 2:
        return None
    height, width = size
    fits = all(type(n) is int and 0 < n <= 4096 and n % multiple == 0 for n in (height, width))
    return (height, width) if fits else None


def recognise(state: Mapping[str, Tensor], path: Path) -> Project:
    """The project that a state dict comes from.

    Raises:
        BadInput: no project fits; the message names the nearest one and what is missing.
    """
    keys = list(state)
    for project in PROJECTS:
        if project.matches(keys):
            return project
    alike = {s.name: [key for key in keys if s.translate(key)] for s in PROJECTS}
    nearest = max(PROJECTS, key=lambda s: len(alike[s.name]))
    known = alike[nearest.name]
    why = f"its {len(keys)} tensors are called {_parts(keys)}, as in no known project"
    if known:
        other = [key for key in keys if nearest.translate(key) is None]
        lack = nearest.lacks(keys)
        why = f"{len(known)} of its {len(keys)} tensors are recognised as {nearest.name}'s: "
        why += _parts(known) + (f"; not recognised: {_parts(other)}" if other else "")
        why += f"; missing: {lack}" if lack else ""
    raise BadInput(
        f"{path} is not a RetinaNet checkpoint that retinart knows",
        why=why,
        fix=f"Known are: retinart, {', '.join(s.name for s in PROJECTS)}",
    )


def load_state_dict(
    state: Mapping[str, Tensor],
    project: Project,
    path: Path,
    *,
    found: FileSettings | None = None,
    settings: Sequence[str] = (),
) -> Loaded:
    """Build the model that the tensors fit and load them, all or nothing.

    Args:
        found: what the file says besides its weights.
        settings: see `load_any`.

    Raises:
        BadInput: see `load_any`.
    """
    found = found or FileSettings()
    renamed: dict[str, Tensor] = {}
    theirs: dict[str, str] = {}
    unexpected = []
    for key, tensor in state.items():
        name = project.translate(key)
        if name is None:
            unexpected.append(key)
        elif name:
            renamed[name], theirs[name] = tensor, key
    if lost := [project.original(name) for name in _SIZES if name not in renamed]:
        raise _misfit(path, project, lost, unexpected, [])
    if flat := [name for name in _SIZES if renamed[name].ndim != 4]:
        hint = "expected 4 dimensions (the other tensors' sizes follow from this one)"
        shapes = [f"{theirs[n]}: {_shape(renamed[n])}, {hint}" for n in flat]
        raise _misfit(path, project, [], unexpected, shapes)
    variant = override(_variant(renamed, project, path, found), settings)
    model = empty_model(variant)
    expected = {
        k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    missing = [project.original(key) for key in expected if key not in renamed]
    unexpected += [theirs[name] for name in renamed if name not in expected]
    shapes = [
        f"{theirs[k]}: {_shape(renamed[k])}, expected {_shape(v)}"
        for k, v in expected.items()
        if k in renamed and renamed[k].shape != v.shape
    ]
    shapes += [
        f"{theirs[k]} {why}"
        for k, v in expected.items()
        if k in renamed and (why := wrong_type(renamed[k], v))
    ]
    if missing or unexpected or shapes:
        raise _misfit(path, project, missing, unexpected, shapes)
    model = fill_model(model, renamed)
    names = found.classes or ()
    classes = names if len(names) == variant.num_classes else default_names(variant.num_classes)
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    told = {setting.partition("=")[0].strip() for setting in settings}
    assumed = tuple(name for name in project.left_open if frozen and name not in told)
    return Loaded(model=model.eval(), variant=variant, classes=classes, assumed=assumed)


def _read(path: Path) -> Any:
    if path.suffix != ".pkl" or not path.exists() or zipfile.is_zipfile(path):
        return read_torch_file(path)
    size = check_regular(path, noun="checkpoint")
    try:
        if size <= _MOST:  # a longer one is refused without a look
            with path.open("rb") as file:
                check_arrays(file, size)
        return load_arrays(read_bytes(path, noun="checkpoint", most=_MOST))
    except pickle.UnpicklingError as error:
        raise BadInput(
            f"cannot read the checkpoint {path}",
            why=str(error),
            fix="A pickled checkpoint may hold NumPy arrays of numbers, and nothing else",
        ) from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The dict of tensors in a file's content, taken out of its wrapper."""
    whole = content
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
            return _without_prefix({k.removeprefix("module."): v for k, v in state.items()})
    has_keys = isinstance(whole, Mapping) and whole
    raise BadInput(
        f"{path} holds no state dict",
        why=f"its content is a {type(whole).__name__} without a model's tensors"
        + (f"; it holds {', '.join(map(str, list(whole)[:8]))}" if has_keys else ""),
        fix="Save model.state_dict() with torch.save",
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without words that begin every key, such as "model.", if a project is left then."""
    prefix = ""
    while not any(project.matches(key[len(prefix) :] for key in state) for project in PROJECTS):
        word, dot, _ = next(iter(state))[len(prefix) :].partition(".")
        prefix += word + dot
        if not dot or not all(key.startswith(prefix) for key in state):
            return state
    return {key[len(prefix) :]: tensor for key, tensor in state.items()}


def _variant(
    state: Mapping[str, Tensor], project: Project, path: Path, found: FileSettings
) -> Variant:
    """The project's settings with the sizes that the tensors have."""
    outputs, coordinates = (state[f"{head}_head.output.weight"].shape[0] for head in ("cls", "box"))
    fields = {**project.settings, **found.fields}
    variant = Variant(
        source=project.name,
        backbone=_backbone(state),
        num_classes=1,
        fpn_channels=state["fpn.lateral.0.weight"].shape[0],
        head_convs=sum(k.startswith("cls_head.convs") and k.endswith(".weight") for k in state),
        **fields,
    )
    anchors = variant.num_anchors
    if coordinates != 4 * anchors or outputs % anchors:
        raise BadInput(
            f"{path} has {coordinates} box outputs and {outputs} class outputs at a position",
            why=f"{project.name} has {anchors} anchors with 4 box outputs each, and weights do not "
            "show the sizes and ratios of other anchors",
            fix="Train or convert with the project's default anchors",
        )
    return replace(variant, num_classes=outputs // anchors)


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
        f"retinart does not know the checkpoint's backbone: blocks {depths}, "
        f"{'bottleneck' if bottleneck else 'basic'}, second convolution {shape}",
        fix=f"Known are: {', '.join(BACKBONES)}",
    )


def _conv2_shape(spec: BackboneSpec) -> tuple[int, int]:
    if not spec.bottleneck:
        return spec.width, spec.width
    width = spec.width * spec.width_per_group // 64 * spec.groups
    return width, width // spec.groups


def _misfit(
    path: Path, project: Project, missing: list[str], unexpected: list[str], shapes: list[str]
) -> BadInput:
    """The error that lists every key that is missing, unexpected or of another shape."""

    def near(key: str, others: list[str], where: str) -> str:
        if len(missing) * len(unexpected) > _COMPARED or len(key) > _LONG:
            return ""
        found = difflib.get_close_matches(key, others, n=1, cutoff=0.6)
        return f" (nearest {where}: {found[0]})" if found else ""

    lines = [f"  missing     {key}{near(key, unexpected, 'in the file')}" for key in missing]
    lines += [f"  unexpected  {key}{near(key, missing, 'expected')}" for key in unexpected]
    lines += [f"  misshapen   {text}" for text in shapes]
    count = len(lines)
    if count > _LISTED:
        lines = [*lines[:_LISTED], "  ..."]
    return BadInput(
        f"{path} looks like {project.name}, but its tensors do not fit",
        why="\n".join([f"{count} differ:", *lines]),
        fix="Nothing was loaded. Export from the file that the project itself saved",
    )


def _parts(keys: Sequence[str]) -> str:
    """The first two words of keys, eight at most."""
    parts = list(dict.fromkeys(".".join(key.split(".")[:2]) for key in keys))
    return ", ".join(parts[:8]) + (" ..." if len(parts) > 8 else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(s) for s in tensor.shape) or "scalar"
