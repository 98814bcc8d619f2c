"""What runs in each of Ray's actors: a detector that gets shards of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from retinart.engine.cluster.batches import actor_cpus
from retinart.engine.cluster.pictures import detect_pictures, file_reader
from retinart.engine.detector import Detector
from retinart.engine.errors import RetinartError
from retinart.engine.evaluation.picture_result import PictureResult
from retinart.engine.media.pixel_limit import limited_pixels
from retinart.engine.model.info import ModelInfo, read_info
from retinart.engine.self_test.check import PASSED_BEFORE
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info


@dataclass(frozen=True, kw_only=True)
class ActorSettings:
    """What an actor loads.

    Attributes:
        model: path of the file; absolute, and the same on each node.
        detector: further arguments of `Detector`.
        max_pixels: see `limited_pixels`; None for the usual limit.
    """

    model: Path
    detector: dict[str, Any] = field(default_factory=dict)
    max_pixels: int | None = None


def version() -> str:
    """The version of retinart that is installed here."""
    return metadata.version("retinart")


def info_of(model: Path) -> ModelInfo:
    """The metadata of a model file."""
    return read_engine_info(model).model if is_engine(model) else read_info(model)


class DetectorActor:
    """Holds one detector. Errors that users see are returned, since Ray would wrap them.

    Args:
        settings: what to load.
    """

    def __init__(self, settings: ActorSettings) -> None:
        self._settings = settings
        self._loaded: Detector | None = None

    def begin(self) -> tuple[int, str]:
        """The process's id and the version of retinart there; nothing is loaded yet."""
        return os.getpid(), version()

    def load(self) -> str | RetinartError:
        """Load the model; returns what a self-test found, "" without one, or what is wrong."""
        settings = {"threads": actor_cpus(), **self._settings.detector}
        try:
            self._loaded = Detector(self._settings.model, **settings)
        except RetinartError as error:
            return error
        checked = self._loaded.checked
        return "" if checked.startswith(PASSED_BEFORE) else checked

    def detect(self, paths: Sequence[str]) -> list[PictureResult] | RetinartError:
        """A result for each picture of a shard, in order."""
        assert self._loaded is not None
        most = self._settings.max_pixels
        reads = [file_reader(Path(path)) for path in paths]
        try:
            with nullcontext() if most is None else limited_pixels(most):
                return list(detect_pictures(self._loaded.runner, reads))
        except RetinartError as error:
            return error
