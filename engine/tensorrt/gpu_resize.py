"""Resizing on the GPU, for large frames: images are uploaded as they are; a kernel resizes them.

It is an option of the engine runtime. The kernel (`resize.cu`) computes what the CPU does, for
models of either form: OpenCV's and Pillow's whole numbers to the bit. In the form "float" it adds
up in another order than OpenCV, so a value that lies between two may be rounded to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retinart.engine.cuda.api import Cuda, DeviceMemory, HostMemory, Stream
from retinart.engine.media.images import Image
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.resized_image import Resized
from retinart.engine.model.variant import Interpolation
from retinart.engine.tensorrt.engine_file import FrameShape
from retinart.engine.tensorrt.kernels import ptx_path

KERNEL = "resize_to_frame"
FORMS: tuple[Interpolation, ...] = ("opencv", "pillow", "float")  # the kernel's numbers of them
_BLOCK = (32, 8)


def plan_resize(rule: ResizeRule, images: Sequence[Image]) -> list[Resized]:
    """Each image's way back. Its `frame` is empty, since the GPU makes that."""
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
        stream: where the work goes; its last batch must be done before one is enqueued.
        rule: gives the padding's colour and the interpolation.
    """

    def __init__(self, cuda: Cuda, stream: Stream, rule: ResizeRule) -> None:
        self._cuda, self._stream, self._rule = cuda, stream, rule
        self._kernel = cuda.kernel(ptx_path("resize").read_bytes(), KERNEL)
        self._device: DeviceMemory | None = None
        self._host: HostMemory | None = None

    def enqueue(
        self, images: Sequence[Image], resized: Sequence[Resized], shape: FrameShape, address: int
    ) -> None:
        """Make a batch of `shape` at `address`, once the stream gets there."""
        device, host = self._memory(sum(image.size for image in images))
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
                *map(np.int32, self._rule.pad_value),
                np.int32(FORMS.index(self._rule.interpolation)),
            ]  # fmt: skip
            self._kernel.launch(self._stream, grid, _BLOCK, arguments)
            offset += image.size
            frame += height * width * channels

    def free(self) -> None:
        """Free the memory."""
        for memory in (self._device, self._host):
            if memory is not None:
                memory.free()
        self._device = self._host = None

    def _memory(self, nbytes: int) -> tuple[DeviceMemory, HostMemory]:
        """Memory for so many bytes on either side; when it grows, then by half at least."""
        if self._device is None or self._host is None or self._device.nbytes < nbytes:
            size = nbytes if self._device is None else max(nbytes, self._device.nbytes * 3 // 2)
            self.free()
            self._device, self._host = self._cuda.device_memory(size), self._cuda.host_memory(size)
        return self._device, self._host
