"""What Triton's Python backend runs: the IR beside this file, on OpenVINO.

It needs openvino and numpy in the backend's Python, and nothing else: no retinart.

Tensors come and go through DLPack. Triton's own way to NumPy, `as_numpy` and `Tensor`, needs the
NumPy that its stub was compiled for: with NumPy 2.4, Triton 2.51 gave inputs with wrong values, and
sent outputs without content.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from retinart_network import OUTPUTS, Network


class TritonPythonModel:
    """One instance of the model; Triton calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the graph, with the parameters in `config.pbtxt` as OpenVINO's properties."""
        folder = Path(args["model_repository"]) / args["model_version"]
        given = json.loads(args["model_config"]).get("parameters", {})
        config = {key: value["string_value"] for key, value in given.items()}
        self._network = Network(folder, config)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests that Triton gathered as one batch."""
        tensors = [pb_utils.get_input_tensor_by_name(one, "frames") for one in requests]
        frames = [np.from_dlpack(tensor) for tensor in tensors]
        ends = np.cumsum([len(one) for one in frames])[:-1]
        parts = [np.split(one, ends) for one in self._network(np.concatenate(frames))]
        return [
            pb_utils.InferenceResponse(
                [_tensor(name, part[i]) for name, part in zip(OUTPUTS, parts, strict=True)]
            )
            for i in range(len(requests))
        ]


def _tensor(name: str, values: np.ndarray[Any, Any]) -> Any:
    """A tensor of Triton, with a copy of the values."""
    return pb_utils.Tensor.from_dlpack(name, _Exported(np.array(values)))


class _Exported:
    """An array whose DLPack capsule leaves freeing to the reader.

    Triton marks a capsule that it has read in its own way. NumPy does not know the mark, and would
    report an error for each.
    """

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self._values = values

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self._values.__dlpack__()
        ctypes.pythonapi.PyCapsule_SetDestructor(ctypes.py_object(capsule), None)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._values.__dlpack_device__()
        return int(kind), int(number)
