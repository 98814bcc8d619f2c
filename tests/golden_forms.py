"""The golden weights in the forms in which their projects save them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

V1, V2, D2, ODTK, MMDET = VARIANTS = (
    "torchvision_retinanet_resnet50_fpn",
    "torchvision_retinanet_resnet50_fpn_v2",
    "detectron2_retinanet_R_50_FPN_3x",
    "odtk_ResNet50FPN",
    "mmdetection_retinanet_r50_fpn",
)


class Form(NamedTuple):
    """A variant's weights in one of the forms in which its project saves them."""

    variant: str
    suffix: str
    wrap: Callable[[Any], Any]


FORMS = {
    "torchvision": Form(V1, ".pth", lambda state: state),
    "torchvision v2": Form(V2, ".pth", lambda state: state),
    "detectron2 zoo": Form(
        D2,
        ".pkl",
        lambda state: {
            "model": {key: value.numpy() for key, value in state.items()},
            "__author__": "Detectron2 Model Zoo",
        },
    ),
    "detectron2 training": Form(
        D2,
        ".pth",
        lambda state: {
            "model": state,
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
            "scheduler": {"last_epoch": 269999, "base_lrs": [0.01]},
            "iteration": 269999,
        },
    ),
    "odtk": Form(
        ODTK,
        ".pth",
        lambda state: {
            "backbone": ["ResNet50FPN"],
            "classes": 80,
            "state_dict": state,
            "ratios": [1.0, 2.0, 0.5],
            "scales": [4 * 2 ** (i / 3) for i in range(3)],
            "iteration": 90000,
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
            "scheduler": {"last_epoch": 90000},
        },
    ),
    "mmdetection": Form(
        MMDET,
        ".pth",
        lambda state: {
            "meta": {
                "cfg": "model = dict(type='RetinaNet')\n",
                "epoch": 12,
                "dataset_meta": {"classes": tuple(f"thing {i}" for i in range(80))},
            },
            "state_dict": state,
        },
    ),
}
OF_VARIANT = {FORMS[name].variant: name for name in reversed(FORMS)}  # its first form
