"""Run images through a model: a histogram of every tensor to quantize, the peaks of all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from retinart.calib.histogram import Histogram
from retinart.calib.network import network_nodes
from retinart.calib.settings import CALIBRATION_IMAGES
from retinart.engine.common.progress import Progress
from retinart.engine.common.wording import counted
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.listed_images import listed_images
from retinart.engine.evaluation.problems import Problems
from retinart.engine.media.images import Image, list_images, read_image, why_skipped
from retinart.engine.model.info import ModelInfo
from retinart.engine.runtime.openvino_probe import peak_probe, tensor_probe

PEAK_IMAGES = 16  # enough to see which tensors come near FP16's limit
_SHAPELESS = ("Shape", "QuantizeLinear", "DequantizeLinear", "Identity")


@dataclass(kw_only=True)
class Observation:
    """What was seen so far.

    Attributes:
        histograms: of the tensors to quantize, over all images.
        peaks: the largest magnitude of every float tensor of the network, over the first
            PEAK_IMAGES images that could be read.
        done: how many images were tried.
        used: the images that could be read.
        varied: whether one of them shows more than a single colour.
        problem: why the last unreadable image was skipped, or "".
    """

    histograms: dict[str, Histogram]
    peaks: dict[str, float] = field(default_factory=dict)
    done: int = 0
    used: list[str] = field(default_factory=list)
    varied: bool = False
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        histograms = {name: h.to_dict() for name, h in self.histograms.items()}
        return {**vars(self), "histograms": histograms}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Observation:
        """What `to_dict` gave."""
        histograms = {name: Histogram.from_dict(h) for name, h in data["histograms"].items()}
        return cls(**{**data, "histograms": histograms})

    def check(self) -> None:
        """Refuse ranges that say nothing about real images.

        Raises:
            BadInput: no image could be read, or each shows a single colour.
        """
        if not self.used:
            raise BadInput(
                "none of the calibration images can be read",
                why=self.problem,
                fix="Give another folder of images, or copy them again",
            )
        if not self.varied:
            raise BadInput(
                "the calibration images show one colour each",
                why="their ranges would clip the activations of real images",
                fix="Use images like those that the model will see",
            )


def choose_images(
    source: str | Sequence[str],
    num: int | None,
    seed: int,
    usual: int = CALIBRATION_IMAGES,
    *,
    listed_in: Path | None = None,
) -> list[Path]:
    """Images of a folder, a file or a glob, or of several, drawn at random and then sorted.

    Args:
        num: how many; None for `usual`, or for all of them where there are fewer.
        listed_in: a COCO file; only the images that it lists are taken.

    Raises:
        BadInput: there are none, or fewer than `num`.
    """
    if num is not None and num < 1:
        raise BadInput(f"{num} images cannot calibrate a model", fix="Give at least 1")
    sources = [source] if isinstance(source, str) else source
    if listed_in is None:
        paths = sorted({path for one in sources for path in list_images(one)})
    else:
        paths = listed_images(listed_in, sources)
    found = f"{', '.join(sources)} {'holds' if len(sources) == 1 else 'hold'} "
    found += counted(len(paths), "image")
    found += "" if listed_in is None else f" of {listed_in}"
    if num is None:
        if len(paths) < usual:
            Progress().line(f"{found}: all are used, where {usual} are the default")
        num = min(usual, len(paths))
    if len(paths) < num:
        raise BadInput(
            f"{found}, and {num} were asked for",
            fix=f"Set `num` to {len(paths)}, or give more images",
        )
    order = np.random.default_rng(seed).permutation(len(paths))[:num]
    return [paths[i] for i in sorted(order)]


def observe(
    model: Path,
    info: ModelInfo,
    graph: onnx.ModelProto,
    images: Sequence[Path],
    seen: Observation,
    *,
    read: Callable[[Path], Image] = read_image,
) -> Iterator[None]:
    """Add images to an observation, one with each step; memory does not grow with their number.

    Args:
        model: the FP32 file, and `graph` what is in it.
        images: all of them; the first `seen.done` are passed over.
        seen: what is added to.
        read: decodes an image.
    """
    left = images[seen.done :]
    if not left:
        return
    probe, progress = tensor_probe(model, list(seen.histograms)), Progress()
    peaks = _peak_probe(model, graph) if len(seen.used) < PEAK_IMAGES else None
    for path in left:
        seen.done += 1
        try:
            image = read(path)
        except BadInput as error:
            seen.problem = f"{path.name}: {why_skipped(error)}"
            progress.line(f"skipped {path}: {why_skipped(error)}")
        else:
            frames = as_frames(info, image)
            for name, values in probe(frames).items():
                seen.histograms[name].add(values)
            if peaks is not None:
                _keep_larger(seen.peaks, peaks(frames))
            seen.used.append(str(path))
            seen.varied = seen.varied or bool(image.max() > image.min())
            if len(seen.used) == PEAK_IMAGES:
                peaks = None  # its memory is free again
            progress.update(seen.done, len(images), "images")
        yield


def observe_peaks(
    model: Path, info: ModelInfo, graph: onnx.ModelProto, images: Sequence[Path]
) -> dict[str, float]:
    """The largest magnitude of every float tensor of the network over images that can be read."""
    probe, progress = _peak_probe(model, graph), Progress()
    peaks: dict[str, float] = {}
    changed = Problems()
    for count, path in enumerate(images, 1):
        image = read_image(path, note=changed.add)
        _keep_larger(peaks, probe(as_frames(info, image)))
        progress.update(count, len(images), "images for the ranges of all tensors")
    for problem in changed.records():
        progress.line(str(problem))
    return peaks


def _keep_larger(peaks: dict[str, float], found: dict[str, float]) -> None:
    """Keep the larger one of each two."""
    for name, peak in found.items():
        peaks[name] = max(peaks.get(name, 0.0), peak)


def as_frames(info: ModelInfo, image: Image) -> Image:
    """(1, H, W, 3) uint8 BGR, as the runtime gives it to the network."""
    frames, _ = info.resize.apply([image])
    return frames


def _peak_probe(model: Path, graph: onnx.ModelProto) -> Callable[[Image], dict[str, float]]:
    return peak_probe(
        model, [n.output[0] for n in network_nodes(graph) if n.op_type not in _SHAPELESS]
    )
