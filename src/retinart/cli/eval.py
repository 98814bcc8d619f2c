"""`retinart eval`: COCO accuracy of a model, or of two."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from retinart.cli.fields import (
    ANNOTATION_FORMS,
    add_json,
    add_max_pixels,
    add_results_out,
    describe_command,
)
from retinart.cli.keeping import keeping
from retinart.cli.on_ray import add_ray, check_ray, on_ray
from retinart.cli.running import add_running, open_detector
from retinart.engine.common.option_names import with_flags
from retinart.engine.errors import BadInput

_DEFAULT_OUT = Path("runs/compare")


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options of `retinart eval`."""
    from retinart.engine.evaluation.gate import UNDECIDED

    describe_command(
        parser,
        "Measure a model's COCO AP on annotated images. With --against, measure two models, print "
        "their figures side by side, and write the images on which the second one loses most.",
        "retinart eval model.onnx --images images --annotations instances.json",
        "retinart eval model.onnx --against model.int8.onnx --max-drop 0.5 \\",
        "    --images images --annotations instances.json",
    )
    add_running(parser)
    group = parser.add_argument_group("dataset")
    group.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of the images"
    )
    group.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"{ANNOTATION_FORMS}, with their annotations",
    )
    group.add_argument(
        "--save-results",
        type=Path,
        metavar="FILE",
        help="write the detections as COCO results with the annotations' ids, so that pycocotools "
        "gives the same figures (default: no file)",
    )
    group.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="HTML page to write, with precision, recall and F1 over the confidence, and the "
        "confusion matrix (default: no page)",
    )
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--against",
        type=Path,
        metavar="MODEL",
        help="a second model to compare with the first; --compute is for the second alone, and the "
        "first is computed in fp32",
    )
    group.add_argument(
        "--max-drop",
        type=float,
        metavar="X",
        help="exit with 1 when the second model loses more than X AP points. It passes when the "
        "whole 95%% interval of the loss is within X, and fails when the whole interval is beyond "
        "X (default: no limit)",
    )
    group.add_argument(
        "--max-recall-drop",
        type=float,
        metavar="X",
        help="exit with 1 when a class loses more than X points of its recall at --at-precision, "
        "at an IoU of 0.5 (default: no limit)",
    )
    group.add_argument(
        "--at-precision",
        type=float,
        metavar="P",
        help="precision at which --max-recall-drop compares recall, in points, such as 90 "
        "(default: none)",
    )
    group.add_argument(
        "--undecided",
        choices=UNDECIDED,
        default="fail",
        help="the result when the interval contains the limit (default: %(default)s)",
    )
    add_results_out(group, _DEFAULT_OUT, "folder for the images of --against")
    add_max_pixels(parser)
    add_ray(parser)
    add_json(parser)
    parser.set_defaults(extra="eval")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    from retinart.engine.common.files import write_json
    from retinart.engine.common.folders import results_folder
    from retinart.engine.common.html_page import load_matplotlib
    from retinart.engine.evaluation.coco_figures import load_pycocotools
    from retinart.engine.evaluation.evaluate import evaluate, figures_table
    from retinart.engine.evaluation.report import Report

    ray = check_ray(args, [("against", None)])
    load_pycocotools()  # with the files, looked for before a model is loaded, which takes seconds
    if not args.images.is_dir():
        raise BadInput(
            f"there is no folder {args.images}", fix="Give the annotations' image folder"
        )
    if not args.annotations.exists():
        raise BadInput(f"there is no {args.annotations}", fix="Give the annotations")
    if args.against is not None:
        _check_limits(args)
        if args.save_results is not None:
            raise BadInput("--save-results is for one model", fix="Leave out --against")
        if args.report is not None:
            raise BadInput("--report is for one model", fix="Leave out --against")
        written = ["comparison.json"]
        with results_folder(args.out, _DEFAULT_OUT, written, overwrite=args.overwrite) as out:
            return _compare(args, out)
    for name in ("max_drop", "max_recall_drop", "at_precision"):
        if getattr(args, name) is not None:
            raise BadInput(
                f"--{name.replace('_', '-')} compares two models",
                fix="Give the second with --against",
            )
    _check_place(args)
    if args.report is not None:
        load_matplotlib()
    if keeping(args)["keep"] is not None:
        print("annotated objects that the rules leave out count as missed", file=sys.stderr)
    if ray:
        result = _on_ray(args)
    else:
        with open_detector(args) as detector:
            result = evaluate(detector, args.annotations, args.images)
    _say_problems(result, args)
    _say_limits(result, args)
    if args.save_results is not None:
        write_json(args.save_results, result.results())
        print(args.save_results, file=sys.stderr)
    report = Report.of(result)
    if args.report is not None:
        report.write(args.report, args.model.name)
        print(args.report, file=sys.stderr)
    if args.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print(f"{figures_table(result)}\n\n{report.text()}")
    return 0


def _on_ray(args: argparse.Namespace) -> Any:
    from retinart.engine.cluster.evaluate import evaluate_on_ray

    actor, pool = on_ray(args)
    return evaluate_on_ray(actor, args.annotations, args.images, address=args.ray, pool=pool)


def _compare(args: argparse.Namespace, out: Path) -> int:
    from retinart.engine.accuracy_drop import compare_models, drop_table

    with open_detector(args, compute="fp32") as first, open_detector(args, args.against) as second:
        result = compare_models(
            first,
            second,
            args.annotations,
            args.images,
            out=out,
            names=(args.model.name, _in_compute(args.against.name, args.compute)),
            precision=None if args.at_precision is None else args.at_precision / 100,
        )
    _say_problems(result.first, args)
    for name, one in zip(result.names, (result.first, result.second), strict=True):
        _say_limits(one, args, of=f"{name}: ")
    print(json.dumps(result.to_json(), indent=1) if args.json else drop_table(result))
    for path in result.outputs:
        print(path, file=sys.stderr)
    return _judged(result, args)


def _judged(result: Any, args: argparse.Namespace) -> int:
    """Say what each limit says of a comparison; the exit code."""
    from retinart.engine.accuracy_drop import change_text
    from retinart.engine.evaluation.evaluate import check_reference
    from retinart.engine.evaluation.gate import judge, worst_of

    changes, passed = result.changes, True
    second = _in_compute(str(args.against), args.compute)
    if args.max_drop is not None:
        check_reference(str(args.model), result.first.ap)
        judgement = judge(changes.figures["AP"], args.max_drop, changes.pictures)
        print(
            f"{second} {change_text(changes.figures['AP'])}; the limit is a loss of "
            f"{args.max_drop:g}: "
            f"{judgement}",
            file=sys.stderr,
        )
        passed &= judgement.passes(args.undecided)
    if args.max_recall_drop is not None:
        name, judgement = worst_of(changes.recall, args.max_recall_drop, changes.pictures)
        print(
            f"{second} {change_text(changes.recall[name], 'recall')} of {name} at a "
            f"precision of {args.at_precision:g}; the limit is a loss of "
            f"{args.max_recall_drop:g}: "
            f"{judgement}",
            file=sys.stderr,
        )
        passed &= judgement.passes(args.undecided)
    return 0 if passed else 1


def _check_limits(args: argparse.Namespace) -> None:
    for name, unit in (("max_drop", "AP points"), ("max_recall_drop", "points of recall")):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= 100:
            raise BadInput(f"--{name.replace('_', '-')} is {value}", fix=f"Give {unit}, 0 to 100")
    if (args.max_recall_drop is None) != (args.at_precision is None):
        raise BadInput(
            "--max-recall-drop and --at-precision need each other", fix="Give both, or neither"
        )
    if args.at_precision is not None and not 1 < args.at_precision <= 100:
        raise BadInput(
            f"--at-precision is {args.at_precision}", fix="Give points above 1, such as 90"
        )


def _check_place(args: argparse.Namespace) -> None:
    """See before the work that the results can be written, and overwrite nothing that is read."""
    from retinart.engine.common.files import AtomicFile

    path: Path | None = args.save_results
    if path is None:
        return
    for source in (args.annotations, args.model):
        if path.resolve() == source.resolve():
            raise BadInput(f"--save-results would overwrite {source}", fix="Give another file")
    AtomicFile(path).discard()


def _in_compute(name: str, compute: str) -> str:
    return name if compute == "fp32" else f"{name} in {compute}"


def _say_problems(result: Any, args: argparse.Namespace) -> None:
    for line in result.problems:
        print(line, file=sys.stderr)
    for path, why in result.skipped:
        print(with_flags(f"skipped {path}: {why}", args.options), file=sys.stderr)


def _say_limits(result: Any, args: argparse.Namespace, *, of: str = "") -> None:
    for note in result.limits.notes("image", result.images):
        print(of + with_flags(note, args.options), file=sys.stderr)
