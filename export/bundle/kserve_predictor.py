"""A predictor for KServe: `python predictor.py --http_port 8080 --grpc_port 8081`.

It serves the IR beside it by the protocol of KServe, version 2, over REST and gRPC. It needs the
packages of requirements.txt, and nothing else: no retinart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kserve
import numpy as np
from kserve.errors import InvalidInput
from kserve.model_server import parser as server_parser
from retinart_network import OUTPUTS, Network

HERE = Path(__file__).parent
INPUT = "frames"
TYPES = {"u8": "UINT8", "i32": "INT32", "f32": "FP32"}


class Predictor(kserve.Model):  # type: ignore[misc]  # kserve has no types
    """Detects on frames (N, H, W, 3) uint8 BGR.

    Requests run one after the other in a thread, so that the server answers probes meanwhile.
    """

    def __init__(self, name: str, network: Network, max_batch: int) -> None:
        super().__init__(name)
        self._network, self._max_batch = network, max_batch
        self._thread = ThreadPoolExecutor(1)
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [described(INPUT, self._network.model.input(INPUT))]

    def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [described(name, self._network.model.output(name)) for name in OUTPUTS]

    async def predict(self, payload: Any, headers: Any = None) -> kserve.InferResponse:
        """Answer a request."""
        frames = self._frames(payload)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._run, frames)
        return kserve.InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=found,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )

    def _run(self, frames: Any) -> list[kserve.InferOutput]:
        outputs = []
        for name, values in zip(OUTPUTS, self._network(frames), strict=True):
            kind = "FP32" if values.dtype == np.float32 else "INT32"
            outputs.append(kserve.InferOutput(name, list(values.shape), kind))
            outputs[-1].set_data_from_numpy(values)
        return outputs

    def _frames(self, payload: Any) -> Any:
        """The frames of a request, or the reason why it is refused."""
        (wanted,) = self.get_input_types()
        what = f"{wanted['name']}, {wanted['datatype']} of the shape {wanted['shape']}"
        if not isinstance(payload, kserve.InferRequest):
            raise InvalidInput("use the protocol version 2: /v2/models/NAME/infer")
        given = payload.inputs
        if [one.name for one in given] != [INPUT] or given[0].datatype != wanted["datatype"]:
            raise InvalidInput(f"the model takes one input: {what}")
        try:
            frames = given[0].as_numpy()
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{INPUT} cannot be read: {error}") from error
        sides = zip(frames.shape, wanted["shape"], strict=False)
        if frames.ndim != 4 or not frames.size or any(b not in (-1, a) for a, b in sides):
            raise InvalidInput(f"the shape is {list(frames.shape)}; the model takes {what}")
        if len(frames) > self._max_batch:
            raise InvalidInput(f"{len(frames)} images are more than {self._max_batch} in a request")
        return frames


def described(name: str, port: Any) -> dict[str, Any]:
    """Name, type and shape of a tensor; -1 stands for any length."""
    shape = [side.get_length() if side.is_static else -1 for side in port.get_partial_shape()]
    kind = TYPES[port.get_element_type().get_type_name()]
    return {"name": name, "datatype": kind, "shape": shape}


def main() -> None:
    """Serve until SIGTERM."""
    settings = json.loads((HERE / "predictor.json").read_text("utf-8"))
    parser = argparse.ArgumentParser(parents=[server_parser])
    parser.add_argument("--threads", type=int, default=0, help="of OpenVINO; 0 takes all CPUs")
    parser.set_defaults(model_name=settings["name"])
    args = parser.parse_args()
    properties = {**settings["properties"], "INFERENCE_NUM_THREADS": args.threads}
    network = Network(HERE, properties)
    kserve.ModelServer().start([Predictor(args.model_name, network, settings["max_batch"])])


if __name__ == "__main__":
    main()
