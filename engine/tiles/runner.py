"""A runner that sees each picture whole and in tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from retinart.engine.common.timing import StageClock
from retinart.engine.detections import Detections
from retinart.engine.media.images import Image
from retinart.engine.model.resized_image import Resized
from retinart.engine.runtime.runner import Finish, Floats, Prepared, Runner
from retinart.engine.tiles.grid import Span, Tiles
from retinart.engine.tiles.merge import Part, merge

LARGEST_BATCH = 8


class TilingRunner:
    """A runner that gives the merged detections of pictures and their tiles; see `Runner`.

    Args:
        runner: what detects.
        tiles: how pictures are divided.

    Attributes:
        inner: what detects.
    """

    def __init__(self, runner: Runner, tiles: Tiles) -> None:
        self.inner, self._tiles = runner, tiles
        self.name, self.info, self.thresholds = runner.name, runner.info, runner.thresholds
        self.identity, self.max_in_flight = runner.identity, runner.max_in_flight
        if runner.max_in_flight > 1:
            # A picture is several batches, so fewer pictures are enough. One more than is computed
            # has to wait, or the runtime would have to.
            self.max_in_flight = 2

    def prepare(self, images: Sequence[Image]) -> Prepared:
        """See `Runner`."""
        crops, places = list[Image](), list[tuple[int, Span, Span]]()
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            crops.append(image)
            places.append((index, (0, height), (0, width)))
            for rows, columns in self._tiles.of((height, width)):
                crops.append(np.ascontiguousarray(image[slice(*rows), slice(*columns)]))
                places.append((index, rows, columns))
        ordered, batches = list[int](), list[Prepared]()
        for group in batches_of(self.inner, crops):
            ordered += group
            batches.append(self.inner.prepare([crops[i] for i in group]))
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        work = _Work(self.inner, batches, [places[i] for i in ordered], sizes)
        # The results are in pixels of the images already.
        same = [Resized(frame=i, size=s, source_size=s) for i, s in zip(images, sizes, strict=True)]
        return Prepared(work.start, same)

    def tensors(self, names: Sequence[str], frames: Image) -> dict[str, Floats] | None:
        """See `Runner`."""
        return self.inner.tensors(names, frames)

    def close(self) -> None:
        """See `Runner`."""
        self.inner.close()


@dataclass(frozen=True)
class _Work:
    """Prepared crops of pictures.

    Attributes:
        runner: what detects.
        batches: of crops.
        places: of the crops in the order of the batches: the picture's index, rows and columns.
        sizes: (height, width) of each picture.
    """

    runner: Runner
    batches: Sequence[Prepared]
    places: Sequence[tuple[int, Span, Span]]
    sizes: Sequence[tuple[int, int]]

    def start(self, clock: StageClock) -> Finish:
        """Start all batches."""
        pending = [batch.submit(clock) for batch in self.batches]

        def finish() -> list[Detections]:
            found = [one for batch in pending for one in batch.result()]
            parts: list[list[Part]] = [[] for _ in self.sizes]
            for (index, rows, columns), one in zip(self.places, found, strict=True):
                parts[index].append(Part(rows, columns, one))
            plus_one = self.runner.info.variant.box_plus_one
            with clock("results"):
                return [
                    merge(of_one, size, self.runner.thresholds, plus_one=plus_one)
                    for of_one, size in zip(parts, self.sizes, strict=True)
                ]

        return finish


def batches_of(runner: Runner, images: Sequence[Image]) -> Iterator[list[int]]:
    """Images as batches of 8, 4, 2 and 1, by their indices; see `ResizeRule.groups`."""
    for group in runner.info.resize.groups(images):
        begin = 0
        for size in batch_sizes(len(group)):
            yield group[begin : begin + size]
            begin += size


def batch_sizes(images: int) -> list[int]:
    """A number of images as batches of 8, 4, 2 and 1: a runner keeps a compiled model for each."""
    sizes = [LARGEST_BATCH] * (images // LARGEST_BATCH)
    left = images % LARGEST_BATCH
    return sizes + [size for size in (4, 2, 1) if left & size]


def is_tiling(runner: Runner) -> bool:
    """Whether a runner, or one that it wraps, sees pictures in tiles."""
    inner = getattr(runner, "inner", None)
    return isinstance(runner, TilingRunner) or (inner is not None and is_tiling(inner))


def innermost(runner: Runner) -> Runner:
    """The runner that runs the model."""
    inner = getattr(runner, "inner", None)
    return runner if inner is None else innermost(inner)
