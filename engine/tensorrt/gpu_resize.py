"""Resizing on the GPU, for large frames: images go there as they are, and a kernel makes the batch.

It is an option of the engine runtime. The kernel (`resize.cu`) computes in float32 where OpenCV
computes with 11 bits, so the two differ by one grey level at most; a test holds that of the
kernel's arithmetic, which `resize_like_gpu` repeats in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinart.engine.cuda.api import Cuda, DeviceMemory, HostMemory, Stream
from retinart.engine.media.images import Image
from retinart.engine.model.resize import ResizeRule
from retinart.engine.model.resized import Resized
from retinart.engine.tensorrt.engine_file import FrameShape

SOURCE = Path(__file__).with_name("resize.cu")
KERNEL = "resize_to_frame"
_BLOCK = (32, 8)


def plan_resize(rule: ResizeRule, images: Sequence[Image]) -> list[Resized]:
    """The way back of each image, whose `frame` is empty: the GPU has it."""
    nothing: Image = np.empty((0, 0, 3), np.uint8)
    return [
        Resized(frame=nothing, size=rule.fit(height, width), source_size=(height, width))
        for height, width, _ in (image.shape for image in images)
    ]


def batch_shape(rule: ResizeRule, resized: Sequence[Resized]) -> FrameShape:
    """(N, H, W, 3) of the batch that holds these."""
    return (len(resized), *rule.canvas_for([one.size for one in resized]), 3)


class GpuResize:
    """Uploads images and resizes them into a batch. Used inside of `cuda.current()`.

    Args:
        cuda: the GPU.
        stream: whose work this becomes; the last batch on it must be done when one is enqueued.
        rule: gives the padding's colour.

    Raises:
        MissingDependency: the kernel cannot be compiled for want of a compiler.
    """

    def __init__(self, cuda: Cuda, stream: Stream, rule: ResizeRule) -> None:
        self._cuda, self._stream, self._pad = cuda, stream, rule.pad_value
        self._kernel = cuda.kernel(SOURCE.read_text(encoding="utf-8"), KERNEL)
        self._device: DeviceMemory | None = None
        self._host: HostMemory | None = None

    def enqueue(
        self, images: Sequence[Image], resized: Sequence[Resized], shape: FrameShape, address: int
    ) -> None:
        """Make a batch of `shape` at `address`, once the stream gets there."""
        device, host = self._room(sum(image.size for image in images))
        _, height, width, channels = shape
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]))
        offset, frame = 0, address
        for image, one in zip(images, resized, strict=True):
            staged = host.array[offset : offset + image.size]
            np.copyto(staged.reshape(image.shape), image)
            self._stream.upload(device.address + offset, staged)
            (image_h, image_w), (h, w) = one.source_size, one.size
            arguments: list[np.generic] = [
                np.uint64(device.address + offset), np.int32(image_h), np.int32(image_w),
                np.uint64(frame), np.int32(height), np.int32(width), np.int32(h), np.int32(w),
                np.float32(image_h / h), np.float32(image_w / w), *map(np.int32, self._pad),
            ]  # fmt: skip
            self._kernel.launch(self._stream, grid, _BLOCK, arguments)
            offset += image.size
            frame += height * width * channels

    def close(self) -> None:
        """Free the memory."""
        for memory in (self._device, self._host):
            if memory is not None:
                memory.free()
        self._device = self._host = None

    def _room(self, nbytes: int) -> tuple[DeviceMemory, HostMemory]:
        """Memory for so many bytes on either side; it grows by half at least."""
        if self._device is None or self._host is None or self._device.nbytes < nbytes:
            size = nbytes if self._device is None else max(nbytes, self._device.nbytes * 3 // 2)
            self.close()
            self._device, self._host = self._cuda.device_memory(size), self._cuda.host_memory(size)
        return self._device, self._host


def resize_like_gpu(image: Image, size: tuple[int, int]) -> Image:
    """What the kernel makes of an image (H, W, 3) for a (height, width), without the padding."""
    one, half = np.float32(1), np.float32(0.5)
    at, after, part = [], [], []
    for target, source in zip(size, image.shape[:2], strict=True):
        scale = np.float32(source / target)
        s = (np.arange(target, dtype=np.float32) + half) * scale - half
        s = np.minimum(np.maximum(s, np.float32(0)), np.float32(source - 1))
        first = np.floor(s).astype(np.intp)
        at.append(first)
        after.append(np.minimum(first + 1, source - 1))
        part.append(s - first.astype(np.float32))
    fy, fx = part[0][:, None, None], part[1][None, :, None]
    pixels = image.astype(np.float32)
    top, bottom = (
        pixels[rows][:, at[1]] * (one - fx) + pixels[rows][:, after[1]] * fx
        for rows in (at[0], after[0])
    )
    values = top * (one - fy) + bottom * fy + half
    return np.asarray(values.astype(np.uint8), np.uint8)
