"""`retinart demo`: the user's way on the model and the pictures that are shipped."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from retinart.cli.fields import add_results_out, describe_command
from retinart.engine.errors import pip_command

# The packages of the extra `demo`; without one of them the demo is shorter.
EXTRA = ("torch", "onnx", "onnxruntime", "pycocotools")
_DEFAULT_OUT = Path("runs/demo")
_PAGE = "demo.html"
_PICTURES = ("test", "test.json", "LICENSE")
MORE = (
    "This was the short form, as these packages are not installed: {}. In retinart's "
    "folder, the command `{}` adds them; the README tells how to get PyTorch without CUDA.\n"
    "With them the demo exports a checkpoint to ONNX and compares the file with PyTorch, makes an "
    "INT8 file, measures the AP of both behind a gate, and times them side by side."
)
_NEXT = "Next, with a checkpoint of yours: retinart export retinanet.pth -o model.onnx"
_OPEN = "Open this page in a browser. It is one file, so you can copy it to another machine:"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart demo`."""
    describe_command(
        parser,
        "Go the whole way on a model and pictures of blood cells that are shipped: export a "
        "checkpoint to ONNX, make an INT8 file, test this machine, compare the AP of the two files "
        "behind a gate, annotate pictures and a video, time FP32 against INT8, and write a page "
        "that shows it all. Without the packages of the extra demo, only annotate pictures and the "
        "video, with an ONNX file that is shipped.",
        "retinart demo",
    )
    add_results_out(parser, _DEFAULT_OUT, "folder for the models, pictures, video and page")
    parser.set_defaults(extra="demo")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.cli import main
    from retinart.demo.page import results_table, write_demo_page
    from retinart.demo.shipped import copy_assets, side_by_side, slide_video
    from retinart.demo.steps import full_steps, run_steps, short_steps
    from retinart.engine.common.folders import results_folder
    from retinart.engine.media.images import list_images

    missing = [name for name in EXTRA if find_spec(name) is None]
    with results_folder(args.out, _DEFAULT_OUT, (_PAGE,), overwrite=args.overwrite) as out:
        given = ("bccd.onnx",) if missing else ("bccd.pt", "calibration")
        copy_assets(out, (*_PICTURES, *given))
        slide_video(out / "blood.mp4", out / "test")
        done = run_steps(short_steps(out) if missing else full_steps(out), main)
        code = max(step.code for step in done)
        if code > 1:
            return code
        annotated = list_images(str(out / "pictures"))[:6]
        side_by_side(out / "detections.jpg", annotated)
        table, more = None, MORE.format(", ".join(missing), pip_command("demo")) if missing else ""
        if not missing:
            table = results_table(out)
            print("\n".join(["", table.text(), "", *table.notes]), file=sys.stderr)
        page = out / _PAGE
        write_demo_page(page, done, table=table, more=more)
    print(f"\n{more or _NEXT}\n\n{_OPEN}", file=sys.stderr)
    print(page.resolve())
    return code
