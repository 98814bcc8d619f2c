"""Run images through a model: a histogram of every tensor to quantize, the peaks of all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from retinart.calib.histogram import Histogram
from retinart.calib.network import network_nodes
from retinart.calib.resume import Saved
from retinart.engine.common.progress import Progress
from retinart.engine.errors import BadInput
from retinart.engine.media.images import Image, list_images, read_image
from retinart.engine.model.info import ModelInfo
from retinart.engine.runtime.openvino_probe import peak_probe, tensor_probe

SAVE_EVERY = 20  # images between two saved states
PEAK_IMAGES = 16  # enough to see which tensors are anywhere near FP16's limit


def choose_images(source: str, num: int, seed: int) -> list[Path]:
    """`num` images of a folder or a glob, drawn without order effects; fewer are an error.

    Raises:
        BadInput: there are none, or fewer than asked for.
    """
    if num < 1:
        raise BadInput(f"{num} images cannot calibrate a model", fix="Ask for at least 1")
    paths = list_images(source)
    if len(paths) < num:
        raise BadInput(
            f"{source} holds {len(paths)} images, and {num} were asked for",
            fix=f"Set `num` to {len(paths)}, or give more images",
        )
    order = np.random.default_rng(seed).permutation(len(paths))[:num]
    return [paths[i] for i in sorted(order)]


def observe(
    model: Path, info: ModelInfo, tensors: Sequence[str], images: Sequence[Path], saved: Saved
) -> tuple[dict[str, Histogram], list[Path]]:
    """Histograms of tensors over images, resized as the runtime resizes them.

    Memory does not grow with the number of images, and the state is saved now and then, so that a
    run that was stopped goes on where it was.

    Args:
        tensors: names in the graph.
        saved: where the state is kept.

    Returns:
        A histogram for each tensor, and the images that could be read.

    Raises:
        BadInput: none of the images can be read, or they show nothing but one colour each.
    """
    histograms = {name: Histogram() for name in tensors}
    done, varied, used, skipped = 0, False, list[str](), ""
    if (state := saved.get("observed")) is not None:
        histograms = {n: Histogram.from_dict(state["histograms"][n]) for n in tensors}
        done, varied, used = state["done"], state["varied"], state["used"]

    def save(count: int) -> None:
        content = {name: h.to_dict() for name, h in histograms.items()}
        state = {"histograms": content, "done": count, "varied": varied, "used": used}
        saved.set("observed", state)

    probe, progress = tensor_probe(model, tensors), Progress()
    for count, path in enumerate(images[done:], done + 1):
        try:
            image = read_image(path)
        except BadInput as error:
            skipped = f"{path.name}: {error.why or error.what}"
            progress.line(f"skipped {path}: {error.why or error.what}")
        else:
            varied = varied or bool(image.max() > image.min())
            for name, values in probe(as_frames(info, image)).items():
                histograms[name].add(values)
            used.append(str(path))
            progress.update(count, len(images), "images")
        if count % SAVE_EVERY == 0 and count < len(images):
            save(count)
    if not used:
        raise BadInput(
            "none of the calibration images can be read",
            why=skipped,
            fix="Give another folder of images, or copy them again",
        )
    if not varied:
        raise BadInput(
            "the calibration images show one colour each",
            why="ranges taken from them would clip whatever real images excite",
            fix="Use images like those that the model will see",
        )
    if done < len(images):
        save(len(images))
    return histograms, [Path(p) for p in used]


def observe_peaks(
    model: Path, info: ModelInfo, graph: onnx.ModelProto, images: Sequence[Path]
) -> dict[str, float]:
    """The largest magnitude of every float tensor of the network over images that can be read."""
    skip = {"Shape", "QuantizeLinear", "DequantizeLinear", "Identity"}
    tensors = [n.output[0] for n in network_nodes(graph) if n.op_type not in skip]
    probe, progress = peak_probe(model, tensors), Progress()
    peaks = dict.fromkeys(tensors, 0.0)
    for count, path in enumerate(images, 1):
        for name, peak in probe(as_frames(info, read_image(path))).items():
            peaks[name] = max(peaks[name], peak)
        progress.update(count, len(images), "images for the ranges of all tensors")
    return peaks


def as_frames(info: ModelInfo, image: Image) -> Image:
    """(1, H, W, 3) uint8 BGR, as the runtime gives it to the network."""
    frames, _ = info.resize.apply([image])
    return frames
