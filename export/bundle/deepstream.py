"""A folder for NVIDIA DeepStream: for its element nvinfer, and with engines for nvinferserver.

nvinfer feeds float planes (N, 3, H, W), so its model has another input: see `nchw_float`.
nvinferserver feeds packed uint8 pixels to a Triton inside of it, so it takes the engines as they
are. NVIDIA's documentation of the two elements has the fields: Gst-nvinfer and Gst-nvinferserver in
docs.nvidia.com/metropolis/deepstream.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.engine.errors import BadInput
from retinart.engine.model.info import INPUT, OUTPUTS, ModelInfo, read_model
from retinart.export.bundle.pbtxt import Symbol, pbtxt
from retinart.export.bundle.settings import BundleSettings
from retinart.export.bundle.triton import LABELS, REPOSITORY, Plan, label_lines, write_triton
from retinart.export.nchw_float import nchw_float

_PARSER = "deepstream_parser.cpp"
_LIBRARY, _FUNCTION = "libretinart_parser.so", "NvDsInferParseRetinart"
_MODES = {"fp32": 0, "int8": 1}  # of nvinfer; 2 is FP16
_NVINFER = """\
# For DeepStream's nvinfer: nvinfer config-file-path=nvinfer.txt
# It has not run on a GPU. Two files are to be made first, in DeepStream's container:
# {library}: see {parser}
# model.plan: {trtexec}
[property]
gpu-id=0
onnx-file=model.onnx
model-engine-file=model.plan
labelfile-path={labels}
custom-lib-path={library}
parse-bbox-func-name={function}
# y = net-scale-factor * (x - offsets): pixels from 0 to 255, and the model does the rest
net-scale-factor=1
offsets=0;0;0
# BGR
model-color-format=1
# planes
network-input-order=0
infer-dims=3;{height};{width}
# padding to the right and below, as retinart has it
maintain-aspect-ratio=1
symmetric-padding=0
batch-size={batch}
network-mode={mode}
network-type=0
num-detected-classes={classes}
# no clustering: NMS is in the model
cluster-mode=4
gie-unique-id=1

[class-attrs-all]
pre-cluster-threshold={threshold}
"""


def write_deepstream(
    folder: Path, model: Path, info: ModelInfo, plans: Sequence[Plan], settings: BundleSettings
) -> str:
    """Write both elements' configuration and models; returns the model's name.

    Args:
        folder: an empty folder.

    Raises:
        BadInput: the model has no fixed size.
    """
    if info.resize.canvas is None:
        raise BadInput(
            f"DeepStream cannot run {model}",
            why="its size is dynamic, and DeepStream brings all frames to one size",
            fix="Export it with `retinart export --height H --width W`",
        )
    name = settings.name_for(model.stem)
    info, data = read_model(model)
    (folder / "model.onnx").write_bytes(nchw_float(data, info))
    (folder / "nvinfer.txt").write_text(nvinfer_config(info, settings.max_batch), "utf-8")
    (folder / LABELS).write_text(label_lines(info), "utf-8")
    shutil.copyfile(Path(__file__).with_name(_PARSER), folder / _PARSER)
    if plans:
        write_triton(folder / REPOSITORY, model, info, plans, settings)
        batch = min([settings.max_batch, *(plan.info.profile[2][0] for plan in plans)])
        config = pbtxt(nvinferserver_config(name, info, batch))
        (folder / "nvinferserver.txt").write_text(config, "utf-8")
    return name


def nvinfer_config(info: ModelInfo, batch: int) -> str:
    """The text of nvinfer's configuration."""
    height, width = info.resize.canvas or (0, 0)
    shapes = (f"--{kind}Shapes={INPUT}:{n}x3x{height}x{width}" for kind, n in _profile(batch))
    words = ["trtexec --onnx=model.onnx --saveEngine=model.plan --noTF32 --stronglyTyped", *shapes]
    return _NVINFER.format(
        parser=_PARSER,
        library=_LIBRARY,
        function=_FUNCTION,
        trtexec=" ".join(words),
        labels=LABELS,
        height=height,
        width=width,
        batch=batch,
        mode=_MODES.get(info.precision.partition("+")[0], 2),
        classes=len(info.classes),
        threshold=info.thresholds.score_thresh,
    )


def _profile(batch: int) -> tuple[tuple[str, int], ...]:
    return ("min", 1), ("opt", batch), ("max", batch)


def nvinferserver_config(name: str, info: ModelInfo, batch: int) -> dict[str, Any]:
    """The fields of nvinferserver's configuration."""
    canvas = info.resize.canvas or (0, 0)
    frames = {"name": INPUT, "dims": [*canvas, 3], "data_type": Symbol("TENSOR_DT_UINT8")}
    repository = {"root": REPOSITORY, "strict_model_config": True}
    config = {
        "unique_id": 1,
        "gpu_ids": [0],
        "max_batch_size": batch,
        "backend": {
            "inputs": [frames],
            "outputs": [{"name": output} for output in OUTPUTS],
            "triton": {"model_name": name, "version": -1, "model_repo": repository},
        },
        "preprocess": {
            "network_format": Symbol("IMAGE_FORMAT_BGR"),
            "tensor_order": Symbol("TENSOR_ORDER_NHWC"),
            "tensor_name": INPUT,
            "maintain_aspect_ratio": 1,
            "symmetric_padding": 0,
            "normalize": {"scale_factor": 1.0, "channel_offsets": [0, 0, 0]},
        },
        "postprocess": {
            "labelfile_path": LABELS,
            "detection": {
                "num_detected_classes": len(info.classes),
                "custom_parse_bbox_func": _FUNCTION,
                "simple_cluster": {"threshold": info.thresholds.score_thresh},
            },
        },
        "custom_lib": {"path": _LIBRARY},
    }
    control = {"process_mode": Symbol("PROCESS_MODE_FULL_FRAME"), "interval": 0}
    return {"infer_config": config, "input_control": control}
