"""Quantize a model's network with NNCF, for a comparison with `retinart calibrate`.

    python -m retinart.benchmarks.peers.nncf_model model.onnx --images DIR -o model.nncf.xml

NNCF 3.4 stops at the loops of the NMS ("Could not find a node nms/Slice_6"). So it gets the network
alone, from the frames to the raw outputs, and its result takes the network's place in the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinart.benchmarks.program import new_parser, run
from retinart.calib.observe import as_frames, choose_images
from retinart.engine.media.images import read_image
from retinart.engine.model.info import HEADS, read_info
from retinart.engine.runtime.openvino_api import find_tensors, load_openvino, openvino_core


def main(argv: Sequence[str] | None = None) -> int:
    """Write OpenVINO's IR. Returns the exit code."""
    parser = new_parser("benchmarks.peers.nncf_model", __doc__)
    parser.add_argument("model", type=Path, help="an FP32 file of `retinart export`")
    parser.add_argument("--images", required=True, help="folder or glob of calibration images")
    parser.add_argument(
        "--num", type=int, default=100, help="images to use, drawn as calibrate does"
    )
    parser.add_argument("--seven-bits", action="store_true", help="NNCF's overflow fix everywhere")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the IR, FILE.xml")
    return run(_work, parser, argv)


def _work(args: argparse.Namespace) -> None:
    import nncf

    openvino, info = load_openvino(), read_info(args.model)
    paths = choose_images(args.images, args.num, seed=0)
    frames = [as_frames(info, read_image(path)) for path in paths]
    model = openvino_core().read_model(args.model)
    raw = find_tensors(model, HEADS)
    network = openvino.Model(raw, model.get_parameters(), "network")
    extra = {}
    if args.seven_bits:
        extra["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE
        )
    quantized = nncf.quantize(network, nncf.Dataset(frames), subset_size=len(frames), **extra)
    for port, result in zip(raw, find_tensors(quantized, HEADS), strict=True):
        for target in port.get_target_inputs():
            if target.get_node().get_type_name() != "Result":
                target.replace_source_output(result)
    old = model.get_parameters()[0]
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(quantized.get_parameters()[0].output(0))
    whole = openvino.Model(model.get_results(), quantized.get_parameters(), "retinart")
    openvino.save_model(whole, args.out, compress_to_fp16=False)
    kinds = [op.get_type_name() for op in whole.get_ops()]
    print(f"{args.out}: {kinds.count('FakeQuantize')} FakeQuantize, nncf {nncf.__version__}")


if __name__ == "__main__":
    raise SystemExit(main())
