"""One step of a training: what is frozen, what is clipped, and when it has diverged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from retinart.train.data import Batch, Objects
from retinart.train.initial import freeze_batch_norms, start
from retinart.train.learner import Learner
from retinart.train.presets import preset
from retinart.train.ranks import Ranks
from retinart.train.retinanet import build_retinanet
from retinart.train.settings import TrainSettings

SETTINGS = TrainSettings(annotations=Path("none"), images=Path("none"), name="none", ema_decay=0.0)


def _learner(settings: TrainSettings = SETTINGS) -> Learner:
    torch.manual_seed(0)
    return Learner(start(settings, ["x"]), settings, Ranks(device=torch.device("cpu")))


def _batch() -> Batch:
    """Two images of noise, 64x64, each with one object."""
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (2, 64, 64, 3), np.uint8))
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    objects = Objects(box, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.bool))
    return Batch(frames, [objects] * 2, [Path("a"), Path("b")])


def test_synchronised_batch_norms_are_frozen_too() -> None:
    """They are no subclass of BatchNorm2d, and several GPUs have them."""
    model = build_retinanet(preset("tiny", 1))
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.train()
    freeze_batch_norms(model)
    norms = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert model.fpn.training
