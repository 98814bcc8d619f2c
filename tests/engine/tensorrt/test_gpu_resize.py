"""The GPU's resize: its arithmetic, in NumPy and as the kernel's own source compiled for a CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from recording_gpu import RecordingCuda, resize_like_gpu
from retinart.engine.media.images import Image
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Interpolation
from retinart.engine.tensorrt.gpu_resize import FORMS, GpuResize, batch_shape, plan_resize
from retinart.engine.tensorrt.kernels import source_path

PAD = (104, 116, 124)
# (image, canvas): down, up, by two exactly, one row, much larger, much smaller, odd
CASES = [
    ((720, 1280), (480, 640)),
    ((40, 60), (160, 224)),
    ((192, 256), (96, 128)),
    ((1, 50), (64, 64)),
    ((2160, 3840), (416, 544)),
    ((7, 5), (96, 128)),
    ((333, 501), (320, 480)),
    ((480, 640), (600, 800)),
    ((427, 640), (800, 1216)),
]


def rule(canvas: tuple[int, int] | None, form: Interpolation = "opencv") -> ResizeRule:
    return ResizeRule(
        short_side=None if canvas else 96,
        max_size=None if canvas else 160,
        canvas=canvas,
        pad_multiple=32,
        pad_value=PAD,
        interpolation=form,
    )


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernel's source, compiled by g++."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    # -ffp-contract=off is what -fmad=false is to nvcc
    flags = [
        "-O1",
        "-shared",
        "-fPIC",
        "-ffp-contract=off",
        "-I",
        str(source_path("resize").parent),
    ]
    source = Path(__file__).with_name("kernel_on_cpu.cpp")
    subprocess.run(["g++", *flags, "-o", library, source], check=True)
    return ctypes.CDLL(str(library)).resize_on_cpu


def run(kernel: Any, image: Image, canvas: tuple[int, int], form: Interpolation) -> Image:
    """The kernel's batch of one image."""
    frame = np.full((*canvas, 3), 1, np.uint8)
    size = image.shape[:2]
    h, w = rule(canvas).fit(*size)
    number = FORMS.index(form)
    kernel(_pointer(image), *size, _pointer(frame), *canvas, h, w, *PAD, number)
    return frame


@pytest.mark.parametrize("form", get_args(Interpolation))
@pytest.mark.parametrize(("size", "canvas"), CASES)
def test_the_kernel_computes_what_the_cpu_computes(
    size: tuple[int, int], canvas: tuple[int, int], form: Interpolation, kernel: Any
) -> None:
    """Whole numbers to the bit; floats but for values between two, and then by one."""
    image = noise(*size, seed=2)
    (expected,), _ = rule(canvas, form).apply([image])
    found = run(kernel, image, canvas, form)
    if form == "float":
        differ = found.astype(int) - expected
        assert np.abs(differ).max() <= 1 and np.mean(differ != 0) < 0.015
        expected = np.empty((*canvas, 3), np.uint8)
        expected[:] = PAD
        h, w = rule(canvas).fit(*size)
        expected[:h, :w] = resize_like_gpu(image, (h, w), form)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("canvas", [(96, 128), None])
def test_the_plan_is_the_cpus(canvas: tuple[int, int] | None) -> None:
    images = [noise(60, 90), noise(200, 100)]
    batch, resized = rule(canvas).apply(images)
    planned = plan_resize(rule(canvas), images)
    assert batch_shape(rule(canvas), planned) == batch.shape
    assert [(p.size, p.source_size) for p in planned] == [(r.size, r.source_size) for r in resized]


@pytest.mark.parametrize("form", ["opencv", "pillow", "float"])
def test_the_kernel_is_told_the_form(form: Interpolation) -> None:
    images, how = [noise(60, 90), noise(200, 100)], rule((96, 128), form)
    batch, _ = how.apply(images)
    cuda: Any = RecordingCuda()
    with cuda.current():
        stream, memory = cuda.stream(), cuda.device_memory(batch.nbytes)
        resize = GpuResize(cuda, stream, how)
        resize.enqueue(images, plan_resize(how, images), (2, 96, 128, 3), memory.address)
        stream.synchronize()
    made = cuda.at(memory.address, batch.nbytes).reshape(batch.shape)
    assert np.abs(made.astype(int) - batch).max() <= (form == "float")


def _pointer(array: Image) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)
