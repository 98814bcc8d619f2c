"""`retinart demo`: export, evaluate and run the small model that is shipped."""

from __future__ import annotations

import argparse
from pathlib import Path

from retinart.cli.export import say_export
from retinart.cli.fields import add_out, describe_command


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart demo`."""
    describe_command(
        parser,
        "Export the small model that is shipped, measure its AP on generated pictures, and detect "
        "in a generated video.",
        "retinart demo --out runs/demo",
    )
    add_out(parser, Path("runs/demo"), "folder for the model, the pictures and the video")
    parser.set_defaults(extra="export,eval")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.benchmarks.demo import run_demo

    report = run_demo(args.out)
    say_export(report.export)
    figures = report.evaluation.figures
    ap, ap50 = (100 * (figures[name] or 0.0) for name in ("AP", "AP50"))
    print(f"\nAP {ap:.1f}, AP50 {ap50:.1f} on {report.evaluation.images} fresh scenes")
    print(f"\nvideo, {report.video.frames} frames, ms a frame by stage:")
    print(report.video.table())
    print("\nfiles:")
    for path in [report.export.path, *report.video.outputs, report.picture]:
        print(f"  {path}")
    return 0
