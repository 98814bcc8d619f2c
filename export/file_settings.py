"""What a checkpoint says besides its weights: settings and class names. One function a project."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from retinart.engine.errors import BadInput
from retinart.engine.model.levels import LEVEL_STRIDES

_MOST, _LARGE = 256, 1e9  # numbers in a list of settings, and each of them


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """What a file says besides its weights.

    Attributes:
        fields: the fields of `Variant` in which the file differs from its project's defaults.
        classes: class names, or None.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None


def none(content: Mapping[str, Any]) -> FileSettings:
    """For projects whose files hold weights alone."""
    return FileSettings()


def odtk(content: Mapping[str, Any]) -> FileSettings:
    """Anchors: `ratios`, and `scales` in strides of each level.

    Raises:
        BadInput: it is a detector of rotated boxes.
    """
    if angles := _numbers(content.get("angles"), above=-math.inf):
        raise BadInput(
            "this odtk checkpoint detects rotated boxes",
            why=f"its anchors have the angles {list(angles)}",
            fix="Only detectors of upright boxes can be exported",
        )
    ratios, scales = _numbers(content.get("ratios")), _numbers(content.get("scales"))
    if not ratios or not scales:
        return FileSettings()
    sizes = tuple(tuple(scale * stride for scale in scales) for stride in LEVEL_STRIDES)
    return FileSettings(fields={"anchor_ratios": ratios, "anchor_sizes": sizes})


def detectron2(content: Mapping[str, Any]) -> FileSettings:
    """Mean and standard deviation, where a file holds the buffers `pixel_mean` and `pixel_std`."""
    state = content.get("model", content)
    if not isinstance(state, Mapping):
        return FileSettings()
    found = {
        field: tuple(round(v, 4) for v in _three(state.get(key)))
        for field, key in (("mean", "pixel_mean"), ("std", "pixel_std"))
    }
    return FileSettings(fields=found if all(found.values()) else {})


def mmdetection(content: Mapping[str, Any]) -> FileSettings:
    """Class names, and from the configuration's text the input's colours and the style."""
    meta = content.get("meta")
    if not isinstance(meta, Mapping):
        return FileSettings()
    dataset = meta.get("dataset_meta")
    names = meta.get("CLASSES")
    if isinstance(dataset, Mapping):
        names = dataset.get("classes", dataset.get("CLASSES"))
    classes = None
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        classes = tuple(names)
    text = meta.get("cfg", meta.get("config"))
    return FileSettings(fields=_colours(text) if isinstance(text, str) else {}, classes=classes)


def _colours(config: str) -> dict[str, Any]:
    """Fields of `Variant` in a configuration's text; none unless it holds all of them."""
    mean, std = (re.search(rf"\b{name}\s*=\s*\[([^\]]*)\]", config) for name in ("mean", "std"))
    rgb = re.search(r"\b(?:bgr_)?to_rgb\s*=\s*(True|False)", config)
    style = re.search(r"\bstyle\s*=\s*['\"](pytorch|caffe)['\"]", config)
    if not (mean and std and rgb and style):
        return {}
    try:
        colours = {
            name: tuple(float(v) for v in found[1].split(",") if v.strip())
            for name, found in (("mean", mean), ("std", std))
        }
    except ValueError:
        return {}
    return {
        **colours,
        "channel_order": "rgb" if rgb[1] == "True" else "bgr",
        "stride_in_1x1": style[1] == "caffe",
    }


def _three(value: Any) -> tuple[float, ...]:
    """The three numbers of a tensor or an array; none of anything else."""
    if isinstance(value, Tensor) and value.numel() == 3:
        return tuple(value.double().flatten().tolist())
    if isinstance(value, np.ndarray) and value.size == 3:
        return tuple(float(v) for v in value.ravel())
    return ()


def _numbers(value: Any, *, above: float = 0) -> tuple[float, ...]:
    """A list of a few finite numbers; none of anything else."""
    if not isinstance(value, list | tuple) or len(value) > _MOST:
        return ()
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return ()
    return tuple(float(v) for v in value) if all(above < v < _LARGE for v in value) else ()
