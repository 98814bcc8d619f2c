"""From a COCO dataset to training batches: augmented, letterboxed, fetched ahead of time.

N  images of a batch      H, W  network input size      M  objects of an image
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco import CocoDataset, CocoImage
from retinart.engine.media.header import is_turned
from retinart.engine.media.images import Image, read_image
from retinart.engine.model.resize_rule import ResizeRule
from retinart.train.data.settings import Augmentation


class Objects(NamedTuple):
    """The objects of an image, in pixels of the network input."""

    boxes: Tensor  # (M, 4) float32 xyxy
    labels: Tensor  # (M,) int64
    crowd: Tensor  # (M,) bool


class Batch(NamedTuple):
    """Images of one size with their objects."""

    frames: Tensor  # (N, H, W, 3) uint8 BGR
    objects: list[Objects]
    paths: list[Path]


class _Sample(NamedTuple):
    image: Image  # (h, w, 3) uint8 BGR
    boxes: npt.NDArray[np.float32]  # (M, 4) xyxy
    crowd: npt.NDArray[np.bool_]  # (M,)


class Batches:
    """All batches of a training run, by step. The batch of step i depends on the seed and i alone.

    Args:
        dataset: images of any sizes.
        rule: with a canvas that all images are fitted to.
        batch_size: N, over all processes. Images that do not fill a batch are left out of the
            epoch.
        seed: of the order and of the augmentation.
        augmentation: how images vary.
        multiscale: range of factors of the canvas, drawn for each step.
        aspect_batches: images taller than wide get batches of their own, with a turned canvas.
        share: takes a process's part of a batch from the list of all.

    Attributes:
        note: why tall images get no batches of their own despite `aspect_batches`, or "".
    """

    def __init__(
        self,
        dataset: CocoDataset,
        *,
        rule: ResizeRule,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        multiscale: tuple[float, float] = (1.0, 1.0),
        aspect_batches: bool = False,
        share: Callable[[Sequence[int]], Sequence[int]] = lambda items: items,
    ) -> None:
        self._images = dataset.images
        self._rule = rule
        self._batch_size = min(batch_size, len(dataset.images))
        self._seed = seed
        self._augmentation = augmentation
        self._multiscale = multiscale
        self._share = share
        tall = np.array([image.height > image.width for image in dataset.images])
        fewer = int(min(tall.sum(), len(tall) - tall.sum()))
        enough = fewer >= self._batch_size
        self.note = ""
        if aspect_batches and 0 < fewer < self._batch_size:
            self.note = (
                f"no batches by aspect: {fewer} of {len(tall)} images are "
                f"{'tall' if fewer == tall.sum() else 'not tall'}, too few for a batch of "
                f"{self._batch_size}"
            )
        self._tall = tall if aspect_batches and enough else np.full(len(tall), False)
        if aspect_batches and not enough and tall.mean() > 0.5:
            self._tall[:] = True
        self._plan: tuple[int, list[npt.NDArray[np.int64]]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every image was seen once."""
        return sum(int(n) // self._batch_size for n in (self._tall.sum(), (~self._tall).sum()))

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self._epoch(epoch)[position]
        key = [self._seed, epoch, position + 1]
        rule = replace(self._rule, canvas=self._canvas(np.random.default_rng(key), chosen))
        mine = self._share(range(len(chosen)))
        loaded = [
            self._load(self._images[int(chosen[i])], rule, np.random.default_rng([*key, i]))
            for i in mine
        ]
        return Batch(
            frames=torch.from_numpy(np.stack([frame for frame, _ in loaded])),
            objects=[objects for _, objects in loaded],
            paths=[self._images[int(chosen[i])].path for i in mine],
        )

    def _epoch(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """The batches of an epoch, as indices of images."""
        known, plan = self._plan
        if known != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(len(self._images))
            tall = self._tall[order]
            plan = []
            for group in (order[~tall], order[tall]):
                full = len(group) // self._batch_size * self._batch_size
                plan += list(group[:full].reshape(-1, self._batch_size))
            if tall.any() and not tall.all():
                plan = [plan[i] for i in rng.permutation(len(plan))]
            self._plan = (epoch, plan)  # two threads may do this at once, with the same result
        return plan

    def _canvas(
        self, rng: np.random.Generator, chosen: npt.NDArray[np.int64]
    ) -> tuple[int, int] | None:
        if self._rule.canvas is None:
            return None
        low, high = self._multiscale
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low < high else low
        height, width = (max(32, round(side * factor / 32) * 32) for side in self._rule.canvas)
        return (width, height) if self._tall[chosen[0]] else (height, width)

    def _load(
        self, image: CocoImage, rule: ResizeRule, rng: np.random.Generator
    ) -> tuple[Image, Objects]:
        settings = self._augmentation
        pixels = read_image(image.path)
        if is_turned(pixels.shape[:2], (image.height, image.width)):
            raise BadInput(
                f"{image.path} is turned against its annotations, as by EXIF",
                why="the file was changed after the training began",
                fix="Resume the training: it leaves such images out",
            )
        # if the file and the annotations disagree about the size, the file counts
        ratio = np.array([pixels.shape[1] / image.width, pixels.shape[0] / image.height] * 2)
        sample = _Sample(pixels, (image.boxes * ratio).astype(np.float32), image.crowd)
        for axis, probability in ((1, settings.flip), (0, settings.flip_vertical)):
            if rng.random() < probability:
                sample = _mirror(sample, axis)
        zoom = float(np.exp(rng.uniform(*np.log(settings.scale))))
        if zoom > 1:
            sample = _cut(sample, zoom, rng, settings.min_visible)
        frame, boxes = _place(sample, min(zoom, 1.0), rule, rng)
        if settings.color:
            frame = _vary_color(frame, settings.color, rng)
        return frame, Objects(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(image.labels),
            crowd=torch.from_numpy(sample.crowd),
        )


def prefetch(batches: Batches, steps: range, *, workers: int) -> Generator[Batch, None, None]:
    """The batches of `steps` in order, made ahead by threads; OpenCV works without the GIL.

    An error in a thread is raised here unchanged.
    """
    if workers < 1:
        for step in steps:
            yield batches[step]
        return
    todo = iter(steps)
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for step in todo:
                waiting.append(pool.submit(batches.__getitem__, step))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _mirror(sample: _Sample, axis: int) -> _Sample:
    """The sample flipped left to right along axis 1, or top to bottom along axis 0."""
    length = sample.image.shape[axis]
    low, high = (0, 2) if axis == 1 else (1, 3)
    boxes = sample.boxes.copy()
    boxes[:, [low, high]] = length - sample.boxes[:, [high, low]]
    return sample._replace(image=np.ascontiguousarray(np.flip(sample.image, axis)), boxes=boxes)


def _cut(sample: _Sample, zoom: float, rng: np.random.Generator, min_visible: float) -> _Sample:
    """A window of 1 / zoom of each side; objects outside it become empty crowds."""
    height, width = sample.image.shape[:2]
    h, w = max(1, round(height / zoom)), max(1, round(width / zoom))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    limit = np.array([w, h, w, h], np.float32)
    boxes = np.clip(sample.boxes - np.array([x, y, x, y], np.float32), 0, limit)
    hidden = _area(boxes) < min_visible * _area(sample.boxes)
    return _Sample(sample.image[y : y + h, x : x + w], boxes, sample.crowd | hidden)


def _place(
    sample: _Sample, zoom: float, rule: ResizeRule, rng: np.random.Generator
) -> tuple[Image, npt.NDArray[np.float32]]:
    """The image on the canvas, anywhere on it if `zoom` made it smaller; its boxes (M, 4)."""
    if rule.canvas is None:
        raise ValueError("training needs a rule with a canvas")
    height, width = rule.canvas
    inner = replace(rule, canvas=(max(1, round(height * zoom)), max(1, round(width * zoom))))
    _, (resized,) = inner.apply([sample.image])
    h, w = resized.frame.shape[:2]
    boxes = resized.from_source(sample.boxes)
    if (h, w) == (height, width):
        return resized.frame, boxes
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = rule.pad_value
    frame[y : y + h, x : x + w] = resized.frame
    return frame, boxes + np.array([x, y, x, y], np.float32)


def _vary_color(frame: Image, strength: float, rng: np.random.Generator) -> Image:
    """Gain by channel, brightness and contrast, as one table of 256 values a channel."""
    value = np.arange(256, dtype=np.float64)[:, None]
    contrast = 1 + rng.uniform(-strength, strength)
    gain = 1 + rng.uniform(-strength, strength, 3) / 2
    shift = 255 * rng.uniform(-strength, strength) / 2
    table = np.clip(np.rint(((value - 128) * contrast + 128) * gain + shift), 0, 255)
    return cv2.LUT(frame, table.astype(np.uint8)[:, None]).astype(np.uint8, copy=False)


def _area(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
