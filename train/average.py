"""A moving average of the weights: what is saved and evaluated."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from retinart.train.model.retinanet import RetinaNet


class Average:
    """An average of a model's weights and batch statistics, the decay rising at first.

    Args:
        model: the model to average; its first weights are the first average.
        decay: share of the old average that an update keeps in the long run; 0 follows the model.

    Attributes:
        model: the averaged model, in evaluation mode.
        updates: how many there have been.
    """

    def __init__(self, model: RetinaNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the model's present state to the average."""
        self.updates += 1
        keep = min(self._decay, self.updates / (self.updates + 10))
        ours, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in theirs.items() if value.is_floating_point()]
        mine: list[Tensor] = [ours[name] for name in floats]
        torch._foreach_lerp_(mine, [theirs[name] for name in floats], 1 - keep)
        for name in theirs.keys() - set(floats):
            ours[name].copy_(theirs[name])
