"""Settings of a bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from retinart.engine.errors import BadInput

Server = Literal["triton", "openvino-model-server", "deepstream", "kserve"]
SERVERS: tuple[Server, ...] = get_args(Server)
# Triton's program that runs the file: a server has several.
Backend = Literal["auto", "tensorrt", "onnxruntime", "openvino", "python"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
MAX_BATCH = 128
_FILES = ("client.py", "config.json", "model.json")  # of a bundle
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class BundleSettings:
    """What to make for which server.

    Attributes:
        server: the server that loads the folder.
        backend: what runs the file in Triton, and so in KServe. auto takes TensorRT where engines
            are given, and ONNX Runtime elsewhere.
        name: of the model in the server; "" takes the file's name.
        max_batch: most images that the server puts into one batch.
        winograd: write FP32 convolutions with Winograd's algorithm, for OpenVINO.
    """

    server: Server
    backend: Backend = "auto"
    name: str = ""
    max_batch: int = 8
    winograd: bool = False

    def __post_init__(self) -> None:
        if self.server not in SERVERS:
            raise BadInput(f"unknown server {self.server!r}", fix=f"Choose {', '.join(SERVERS)}")
        if self.backend not in BACKENDS:
            raise BadInput(
                f"unknown backend {self.backend!r}", fix=f"Choose one of: {', '.join(BACKENDS)}"
            )
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise BadInput(
                f"`max_batch` is {self.max_batch}", fix=f"Give a whole number from 1 to {MAX_BATCH}"
            )
        if self.name and not _NAME.fullmatch(self.name):
            raise BadInput(
                f"a model cannot have the `name` {self.name!r}",
                why="it becomes a folder's name and a part of addresses",
                fix="Use letters, digits, _, . and -",
            )
        if self.name in _FILES:
            raise BadInput(
                f"a model cannot have the `name` {self.name!r}",
                why="a file of the bundle has it",
                fix="Choose another one",
            )
        if self.server in ("openvino-model-server", "deepstream") and self.backend != "auto":
            raise BadInput("`backend` is for Triton", fix="Leave `backend` out")
        if self.server == "deepstream" and self.winograd:
            raise BadInput(
                "DeepStream does not take `winograd`",
                why="Winograd's algorithm is written in OpenVINO's graph",
                fix="Leave `winograd` out",
            )

    def name_for(self, stem: str) -> str:
        """The model's name in the server: the one that was given, or one made of a file's."""
        made = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
        return self.name or made or "model"
