"""From a COCO dataset to training batches: augmented, letterboxed, fetched ahead of time.

N  images of a batch      H, W  network input size      M  objects of an image
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retinart.engine.coco import CocoDataset, CocoImage
from retinart.engine.images import Image, read_image
from retinart.engine.resize import ResizeRule


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images vary.

    Attributes:
        flip: probability of a mirror image.
        color: strength of the jitter of brightness, contrast and the channels' gains; 0 for none.
        scale: range of the zoom, 1 being the whole image fitted to the canvas; below 1 it is
            smaller and lies anywhere, above 1 a part is cut out.
        min_visible: an object of which a cut leaves less than this share is ignored, as crowds are.
    """

    flip: float = 0.5
    color: float = 0.2
    scale: tuple[float, float] = (0.8, 1.25)
    min_visible: float = 0.35


NO_AUGMENTATION = Augmentation(flip=0.0, color=0.0, scale=(1.0, 1.0))


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
    """All batches of a training run, by step: what step i sees depends on the seed and i alone.

    Args:
        dataset: images in any sizes.
        rule: with a canvas, which all images are brought to.
        batch_size: N; the images that do not fill a batch are left out of an epoch.
        seed: of the order and of the augmentation.
        augmentation: how images vary.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        *,
        rule: ResizeRule,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        self._images = dataset.images
        self._rule = rule
        self._batch_size = min(batch_size, len(dataset.images))
        self._seed = seed
        self._augmentation = augmentation

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every image was seen once."""
        return len(self._images) // self._batch_size

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._images))
        chosen = order[position * self._batch_size :][: self._batch_size]
        rng = np.random.default_rng([self._seed, epoch, position + 1])
        images = [self._images[int(i)] for i in chosen]
        loaded = [self._load(image, rng) for image in images]
        return Batch(
            frames=torch.from_numpy(np.stack([frame for frame, _ in loaded])),
            objects=[objects for _, objects in loaded],
            paths=[image.path for image in images],
        )

    def _load(self, image: CocoImage, rng: np.random.Generator) -> tuple[Image, Objects]:
        settings = self._augmentation
        pixels = read_image(image.path)
        # the file counts, should it and the annotations not agree on the size
        ratio = np.array([pixels.shape[1] / image.width, pixels.shape[0] / image.height] * 2)
        sample = _Sample(pixels, (image.boxes * ratio).astype(np.float32), image.crowd)
        if rng.random() < settings.flip:
            sample = _mirror(sample)
        zoom = float(np.exp(rng.uniform(*np.log(settings.scale))))
        if zoom > 1:
            sample = _cut(sample, zoom, rng, settings.min_visible)
        frame, boxes = _place(sample, min(zoom, 1.0), self._rule, rng)
        if settings.color:
            frame = _vary_color(frame, settings.color, rng)
        return frame, Objects(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(image.labels),
            crowd=torch.from_numpy(sample.crowd),
        )


def prefetch(batches: Batches, steps: range, *, workers: int) -> Generator[Batch, None, None]:
    """The batches of `steps` in order, made ahead by threads (OpenCV works without the GIL).

    An error in a thread is raised here, as it is.
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


def _mirror(sample: _Sample) -> _Sample:
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return sample._replace(image=np.ascontiguousarray(sample.image[:, ::-1]), boxes=boxes)


def _cut(sample: _Sample, zoom: float, rng: np.random.Generator, min_visible: float) -> _Sample:
    """A window of 1 / zoom of each side; objects outside of it become empty crowds."""
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
    """The image on the canvas, smaller by `zoom` and then anywhere on it; boxes (M, 4) there."""
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
