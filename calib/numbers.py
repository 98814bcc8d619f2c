"""The 8-bit numbers that Q/DQ pairs round to: INT8, and FP8 with 4 bits of exponent (E4M3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from retinart.calib.settings import Quantized
from retinart.engine.model.steps import half_step

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Numbers:
    """A type of numbers, symmetric about 0.

    Attributes:
        name: of the type.
        onnx_type: ONNX's.
        lowest, largest: values beyond them are clipped.
    """

    name: Quantized
    onnx_type: int
    lowest: float
    largest: float

    @property
    def dtype(self) -> npt.DTypeLike:
        """NumPy's type; for FP8 it comes from ml_dtypes, which onnx needs."""
        return tensor_dtype_to_np_dtype(self.onnx_type)

    def step(self, peak: float) -> float:
        """The scale with which `largest` is `peak` or a little more.

        FP16 can hold it, so a file quantizes in the same way whether its float part is FP32 or
        FP16. For a tensor of zeros any scale will do.
        """
        return half_step(peak / self.largest)

    def encode(self, values: Floats, *, symmetric: bool = False) -> npt.NDArray[Any]:
        """The nearest numbers of the type; ties go to the even one. `values` are in steps.

        Args:
            symmetric: -127 is the lowest integer, as it is of weights.
        """
        clipped = np.clip(values, -self.largest if symmetric else self.lowest, self.largest)
        return (np.round(clipped) if self.name == "int8" else clipped).astype(self.dtype)


INT8 = Numbers("int8", onnx.TensorProto.INT8, -128, 127)
FP8 = Numbers("fp8", onnx.TensorProto.FLOAT8E4M3FN, -448, 448)
NUMBERS: dict[Quantized, Numbers] = {"int8": INT8, "fp8": FP8}
