"""What `retinart detect` and `retinart eval` have in common: how a model is run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from retinart.engine.model.info import COMPUTE


def running_options() -> argparse.ArgumentParser:
    """The options of a model that runs."""
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("model", type=Path, help="ONNX file, or an engine of `retinart build`")
    running.add_argument("--runtime", choices=("auto", "openvino", "onnxruntime"), default="auto")
    running.add_argument("--device", help="OpenVINO device, default CPU; for an engine cuda:0")
    running.add_argument("--threads", type=int, metavar="N")
    running.add_argument(
        "--compute",
        choices=COMPUTE,
        default="fp32",
        help="what OpenVINO computes float layers in: bf16 is fastest on CPUs that have it, "
        "fp32-direct is FP32 without Winograd's algorithm, in less memory (default %(default)s); "
        "with eval --against the second model's, the first is in fp32",
    )
    running.add_argument("--conf", type=float, metavar="T", help="instead of the file's")
    running.add_argument("--iou", type=float, metavar="T", help="instead of the file's")
    running.add_argument("--max-det", type=int, metavar="N", help="instead of the file's")
    return running


def open_detector(args: argparse.Namespace, model: Path | None = None, **more: Any) -> Any:
    """A detector of the command's model, or of another one."""
    from retinart.engine.detector import Detector

    return Detector(
        model or args.model,
        runtime=args.runtime,
        conf=args.conf,
        iou=args.iou,
        max_det=args.max_det,
        device=args.device,
        threads=args.threads,
        **{"compute": args.compute, **more},
    )
