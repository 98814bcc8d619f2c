"""`retinart demo`: export, evaluate and run the small model that is shipped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from retinart.cli.export import say_export


def add_command(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `retinart demo` to the parser."""
    demo = commands.add_parser(
        "demo", parents=[common], help="export, evaluate and run the small model that is shipped"
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    demo.set_defaults(run=_demo, extra="export,eval")


def _demo(args: argparse.Namespace) -> int:
    from retinart.benchmarks.demo import run_demo

    report = run_demo(args.out)
    say_export(report.export)
    figures = report.evaluation.figures
    ap, ap50 = (100 * (figures[name] or 0.0) for name in ("AP", "AP50"))
    print(f"\nAP {ap:.1f}, AP50 {ap50:.1f} on {report.evaluation.images} fresh scenes")
    print(f"\nvideo, {report.video.frames} frames, ms a frame by stage:")
    print(report.video.table())
    print("\nleft behind:")
    for path in [report.export.path, *report.video.outputs, report.picture]:
        print(f"  {path}")
    return 0
