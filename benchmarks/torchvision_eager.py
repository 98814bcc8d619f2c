"""Against torchvision in eager mode, end to end: from a decoded frame to its final boxes.

    python -m retinart.benchmarks.torchvision_eager CKPT --images DIR --imgsz 400 600 800

Each engine sits in a process of its own with the same number of threads, and they run in turn,
image by image, in A B B A order. Images are 4:3, so that both networks get the same size, which is
asserted. A fixed piece of arithmetic is timed between the repeats: its spread says how quiet the
machine was. torchvision is imported from a folder of its own, see `--peers`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.timing.statistics import NOISY, Estimate

# Nothing that needs PyTorch is imported here: worker processes import this module when they start.


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print a table, write JSON. Returns the exit code."""
    from retinart.benchmarks.torchvision_compare import Settings, compare
    from retinart.engine.common.files import atomic_path
    from retinart.engine.errors import RetinartError

    args = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = compare(
                Settings(
                    checkpoint=args.checkpoint,
                    images=args.images,
                    num_images=args.num_images,
                    imgsz=tuple(args.imgsz),
                    repeats=args.repeats,
                    threads=args.threads,
                    models=args.models or Path(folder),
                    peers=args.peers,
                    channels_last=args.channels_last,
                )
            )
        if args.out is not None:
            with atomic_path(args.out) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except RetinartError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(report(result))
    return 0


def report(result: dict[str, Any]) -> str:
    """The result of `compare` as Markdown."""
    scales = result["scales"]
    lines = [
        f"{result['checkpoint']['name']}, {len(result['images'])} images, {scales[0]['pairs']} "
        f"pairs a scale, {result['threads']} threads; ms as median (p90), intervals are 95%",
        "",
        "| short side | network | retinart | torchvision eager | ratio of medians "
        "| median of pair ratios | after the network |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in scales:
        share = s["share_after_network"]
        lines.append(
            f"| {s['imgsz']} | {s['network_size'][0]}x{s['network_size'][1]} "
            f"| {_ms(s['ours_ms']['total'])} | {_ms(s['torchvision_ms']['total'])} "
            f"| {Estimate(**s['ratio_of_medians'])} | {Estimate(**s['median_of_ratios'])} "
            f"| {share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%}) |"
        )
    lines += ["", "| stage, ms | " + " | ".join(str(s["imgsz"]) for s in scales) + " |"]
    lines.append("|---" * (len(scales) + 1) + "|")
    for side, name in (("ours_ms", "retinart"), ("torchvision_ms", "torchvision")):
        for stage in scales[0][side]:
            cells = " | ".join(_ms(s[side][stage]) for s in scales)
            lines.append(f"| {name}: {stage} | {cells} |")
    for key, name in (
        ("selection_ms", "candidate selection (within infer), by the runtime's profile"),
        ("candidates_less_heads_ms", "the same, as graph to candidates less graph to heads"),
    ):
        cells = " | ".join(str(Estimate(**s[key])) for s in scales)
        lines.append(f"| retinart: {name} | {cells} |")
    lines.append("")
    for s in scales:
        for kind, found in s["agreement"].items():
            lines.append(
                f"{s['imgsz']}, {kind}: detections matched {found['matched']}, missing "
                f"{found['missing']}, extra {found['extra']}; largest difference of a pair's "
                f"scores {found['score_diff']:.4f}, corners {found['corner_diff']:.2f} px"
            )
    lines += [
        "",
        "After the network: selection, by the profile, and NMS, as a share of the total. The "
        "difference of the two graphs is lower, as raw heads are copied out. torchvision resizes "
        "floats and we resize bytes, so of full images not every detection has its partner; "
        f"torchvision's nms (within rest) is a {result['peer_nms']}.",
    ]
    for s in scales:
        if s["noise"] > NOISY:
            lines.append(
                f"WARNING: at {s['imgsz']} the reference workload varied by {s['noise']:.0%}: the "
                "machine was not quiet, these figures are not to be trusted"
            )
    return "\n".join(lines)


def _ms(figures: dict[str, float]) -> str:
    return f"{figures['p50']:.1f} ({figures['p90']:.1f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retinart.benchmarks.torchvision_eager", description=(__doc__ or "")[:72]
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="state dict of retinanet_resnet50_fpn or its v2")
    add("--images", required=True, help="folder, file or glob; the first 4:3 ones are taken")
    add("--num-images", type=int, default=8, help="images to take (default 8)")
    add("--imgsz", type=int, nargs="+", default=[400, 600, 800], help="shorter sides")
    add("--repeats", type=int, default=5, help="runs of every image (default 5)")
    add("--threads", type=int, default=2, help="threads of either engine (default 2)")
    add("--models", type=Path, help="keep the exported files here, and take those that are there")
    add("--peers", type=Path, default=Path("build/peers"), help="torchvision's folder")
    add("--channels-last", action="store_true", help="lay torchvision's weights out channels last")
    add("--out", type=Path, help="write everything as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
