"""The part of a run that learns: model, optimizer and average, one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinart.engine.model.variant import Variant
from retinart.train.average import Average
from retinart.train.data.batches import Batch, Objects
from retinart.train.initial import Start, freeze_batch_norms, trainable
from retinart.train.loss.criterion import Normalizer, assign, detection_loss, mean_over_processes
from retinart.train.model.fake_quantize import FakeQuantized, read_rounding
from retinart.train.model.predict import normalize
from retinart.train.model.retinanet import RetinaNet, variant_anchors
from retinart.train.model.winograd import FastConvolutions
from retinart.train.ranks import Ranks
from retinart.train.settings import TrainSettings

# what an optimizer keeps for each weight
_KEPT = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(Exception):
    """A loss or a gradient is NaN or infinite; the text says which."""


class Learner:
    """A model in training, in one process of a run.

    Args:
        begun: the model with its first weights.
        settings: of the run.
        ranks: the processes that share each step.

    Attributes:
        net: the model.
        average: its moving average.
        measured: what AP is measured of: the average, rounded if the training rounds.
    """

    def __init__(self, begun: Start, settings: TrainSettings, ranks: Ranks) -> None:
        self._variant, self._settings, self._ranks = begun.variant, settings, ranks
        device = ranks.device
        self.net: RetinaNet = begun.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.norm == "frozen":
            freeze_batch_norms(self.net)
        rounding = None if settings.quantize is None else read_rounding(settings.quantize)
        self._model: nn.Module = FakeQuantized(self.net, rounding) if rounding else self.net
        if ranks.count > 1:
            if device.type == "cuda" and settings.norm != "frozen":
                nn.SyncBatchNorm.convert_sync_batchnorm(self.net)  # type: ignore[no-untyped-call]
            self._model = DistributedDataParallel(self._model)
        self.average = Average(self.net, settings.ema_decay)
        self.measured: nn.Module = self.average.model
        if rounding:
            self.measured = FakeQuantized(self.average.model, rounding).eval()
        self._optimizer = make_optimizer(self.net, settings)
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self._anchors = _anchors(self._variant, device)
        self._fast = device.type == "cpu" and settings.precision == "fp32" and rounding is None

    def state(self) -> dict[str, Any]:
        """The state that a stopped run needs besides the averaged weights."""
        return {
            "model": self.net.state_dict(),
            "updates": self.average.updates,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state` to which the averaged weights were added as "average".

        The optimizer has this run's settings and the state's tensors.

        Raises:
            RuntimeError, LookupError, TypeError, ValueError: the state does not fit.
        """
        self.net.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        groups = self._optimizer.state_dict()["param_groups"]
        if [len(g["params"]) for g in state["optimizer"]["param_groups"]] != [
            len(g["params"]) for g in groups
        ]:
            raise ValueError("the optimizer has tensors for other weights")
        self._optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        for weight, values in self._optimizer.state.items():
            _check_kept(weight, values, _KEPT[self._settings.optimizer])
        self._scaler.load_state_dict(state["scaler"])

    def step(self, batch: Batch, lr: float) -> list[float]:
        """One update of the weights.

        Returns:
            Class loss and box loss over all processes.

        Raises:
            Diverged: a loss or the gradient is NaN or infinite; the weights stay as they were. In
                fp16 such gradients are skipped until the loss's scale has fallen below 1.
        """
        settings, device, parts = self._settings, self._ranks.device, self._settings.accumulate
        self._model.train()
        if settings.norm == "frozen":
            freeze_batch_norms(self.net)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        anchors = self._anchors((batch.frames.shape[1], batch.frames.shape[2]))
        objects = [Objects(*(t.to(device) for t in o)) for o in batch.objects]
        normalizer = self._normalizer(objects, anchors)
        total = torch.zeros(2, device=device)
        self._optimizer.zero_grad(set_to_none=True)
        for part in range(parts):
            images = normalize(batch.frames[part::parts].to(device), self._variant)
            alone = part + 1 < parts and isinstance(self._model, DistributedDataParallel)
            with self._model.no_sync() if alone else nullcontext():  # type: ignore[operator]
                with (
                    torch.autocast(
                        device.type,
                        _TYPES[settings.precision],
                        enabled=settings.precision != "fp32",
                    ),
                    FastConvolutions() if self._fast else nullcontext(),
                ):
                    outputs = self._model(images)
                losses = detection_loss(
                    outputs,
                    objects[part::parts],
                    anchors,
                    num_classes=self._variant.num_classes,
                    settings=settings.loss,
                    normalizer=normalizer,
                )
                self._scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
            total += torch.stack([losses.cls, losses.box]).detach()
        self._scaler.unscale_(self._optimizer)
        limit = settings.max_grad_norm or math.inf
        length = nn.utils.clip_grad_norm_(trainable(self.net), limit)
        # DDP averages gradients over the processes, so the losses are averaged too
        values: list[float] = (self._ranks.sum(total) / self._ranks.count).tolist()
        if not math.isfinite(sum(values)):
            raise Diverged("loss")
        # a scaler skips such a step and halves its scale; that mends an overflow, but not a NaN
        if not math.isfinite(length.item()) and (
            not self._scaler.is_enabled() or self._scaler.get_scale() < 1
        ):
            raise Diverged("gradient")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.average.update(self.net)
        return values

    def _normalizer(self, objects: list[Objects], anchors: Tensor) -> Normalizer:
        """The divisor of the losses: a count over the whole step, also for a part of it."""
        if self._settings.accumulate == 1:
            return mean_over_processes
        positives = len(assign(objects, anchors, self._settings.loss).image)
        divisor = mean_over_processes(anchors.new_tensor(positives, dtype=torch.float32))
        return lambda _: divisor


def _check_kept(weight: Any, values: Any, names: set[str]) -> None:
    """Raise ValueError where an optimizer would fail on what it keeps for a weight."""
    if not isinstance(weight, Tensor) or not isinstance(values, dict) or values.keys() != names:
        raise ValueError("the optimizer's state is one of another optimizer")
    for value in values.values():
        if not isinstance(value, Tensor | None) or (
            value is not None and value.shape not in ((), weight.shape)
        ):
            raise ValueError("the optimizer's tensors have other shapes than the weights")


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings, over all weights that learn."""
    decay, weights = settings.weight_decay, trainable(model)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            weights, lr=settings.lr, weight_decay=0.05 if decay is None else decay
        )
    return torch.optim.SGD(
        weights,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=1e-4 if decay is None else decay,
    )


def _anchors(variant: Variant, device: torch.device) -> Callable[[tuple[int, int]], Tensor]:
    """A function from a frame's (height, width) to its anchors (A, 4), made once for each size."""
    known: dict[tuple[int, int], Tensor] = {}

    def of(size: tuple[int, int]) -> Tensor:
        if size not in known:
            made = np.concatenate(variant_anchors(variant, size))
            known[size] = torch.from_numpy(made).to(device)
        return known[size]

    return of
