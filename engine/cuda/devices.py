"""Which GPUs this machine has, asked of NVIDIA's driver before any other library of NVIDIA's.

A TensorRT runtime on a machine without a GPU may end the process, so this check comes first. It
needs only the driver's library, through ctypes. The calls are declared in cuda.h.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_uint
from dataclasses import dataclass

DRIVER = "libcuda.so.1"

_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
# name: argument types, as cuda.h declares them (a CUdevice is an int)
SIGNATURES = {
    "cuInit": [c_uint],
    "cuDriverGetVersion": [POINTER(c_int)],
    "cuDeviceGetCount": [POINTER(c_int)],
    "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDeviceGetName": [c_char_p, c_int, c_int],
    "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that can be used.

    Attributes:
        index: the driver's number for it.
        name: as NVIDIA calls it.
        compute_capability: such as "8.9".
        cuda: the newest CUDA version that the driver runs, such as "13.0".
    """

    index: int
    name: str
    compute_capability: str
    cuda: str


def find_gpus(driver: str = DRIVER) -> list[Gpu]:
    """The GPUs of this machine; an empty list without a driver that works."""
    try:
        library = ctypes.CDLL(driver)
        for name, types in SIGNATURES.items():
            getattr(library, name).argtypes = types
    except (OSError, AttributeError):
        return []
    count, version = c_int(), c_int()
    if library.cuInit(0) or library.cuDeviceGetCount(byref(count)):
        return []
    library.cuDriverGetVersion(byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    found = []
    for index in range(count.value):
        device, label = c_int(), ctypes.create_string_buffer(256)
        numbers = [c_int(), c_int()]
        failed = library.cuDeviceGet(byref(device), index)
        failed |= library.cuDeviceGetName(label, len(label), device)
        for number, attribute in zip(numbers, _CAPABILITY, strict=True):
            failed |= library.cuDeviceGetAttribute(byref(number), attribute, device)
        if not failed:
            capability = ".".join(str(n.value) for n in numbers)
            text = label.value.decode(errors="replace")
            found.append(Gpu(index=index, name=text, compute_capability=capability, cuda=cuda))
    return found
