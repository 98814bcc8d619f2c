"""Run images through a model and keep a histogram of every tensor that is to be quantized."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinart.calib.histogram import Histogram
from retinart.engine.errors import BadInput
from retinart.engine.files import atomic_path
from retinart.engine.images import list_images, read_image
from retinart.engine.info import ModelInfo
from retinart.engine.progress import Progress
from retinart.engine.runners import tensor_probe

SAVE_EVERY = 20  # images between two saved states


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
            fix=f"Use --num {len(paths)}, or more images",
        )
    order = np.random.default_rng(seed).permutation(len(paths))[:num]
    return [paths[i] for i in sorted(order)]


def observe(
    model: Path,
    info: ModelInfo,
    tensors: Sequence[str],
    images: Sequence[Path],
    *,
    state: Path,
    key: str,
) -> tuple[dict[str, Histogram], list[Path]]:
    """Histograms of tensors over images, resized as the runtime resizes them.

    The state is saved now and then, so that a run that was stopped goes on where it was; it is
    removed at the end.

    Args:
        tensors: names in the graph.
        state: file of the saved state.
        key: identifies model and images; a state with another one is not taken up.

    Returns:
        A histogram for each tensor, and the images that could be read.

    Raises:
        BadInput: none of the images can be read, or they show nothing but one colour.
    """
    histograms = {name: Histogram() for name in tensors}
    done, used = 0, list[str]()
    saved = _load(state, key)
    if saved is not None:
        histograms = {n: Histogram.from_dict(saved["histograms"][n]) for n in tensors}
        done, used = saved["done"], saved["used"]
    probe, progress = tensor_probe(model, tensors), Progress()
    skipped, varied = "", bool(used)
    for count, path in enumerate(images[done:], done + 1):
        try:
            image = read_image(path)
        except BadInput as error:
            skipped = str(error)
            progress.line(f"skipped: {error}")
            continue
        varied = varied or bool(image.max() > image.min())
        frames, _ = info.resize.apply([image])
        for name, values in probe(frames).items():
            histograms[name].add(values)
        used.append(str(path))
        progress.update(count, len(images), "images")
        if count % SAVE_EVERY == 0 and count < len(images):
            _save(state, key, histograms, count, used)
    if not used:
        raise BadInput("none of the calibration images can be read", why=skipped)
    if not varied:
        raise BadInput(
            "the calibration images show one colour each",
            why="ranges taken from them would clip whatever real images excite",
            fix="Use images like those that the model will see",
        )
    state.unlink(missing_ok=True)
    return histograms, [Path(p) for p in used]


def _save(
    state: Path, key: str, histograms: dict[str, Histogram], done: int, used: list[str]
) -> None:
    content = {
        "key": key,
        "done": done,
        "used": used,
        "histograms": {name: h.to_dict() for name, h in histograms.items()},
    }
    with atomic_path(state) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _load(state: Path, key: str) -> dict[str, Any] | None:
    if not state.is_file():
        return None
    content: dict[str, Any] = json.loads(state.read_text(encoding="utf-8"))
    return content if content.get("key") == key else None
