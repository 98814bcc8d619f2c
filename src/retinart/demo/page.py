"""The demo's page: what came out, and every command with its output, in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinart.benchmarks.latency.tables import noise_text
from retinart.demo.steps import MAX_DROP, Done
from retinart.engine.common.cpu import cpu_name, instruction_sets
from retinart.engine.common.html_page import details, paragraphs, write_page
from retinart.engine.common.markup import Html, element, image, joined, video
from retinart.engine.common.table import Table
from retinart.engine.evaluation.evaluate import points

TITLE = "From a checkpoint to a fast detector"
_BCCD = "https://github.com/Shenggan/BCCD_Dataset"
_WORDS = (
    "The model finds three kinds of blood cells: red ones (RBC), white ones (WBC), and Platelets, "
    "which make blood clot.",
    "INT8 is a file that computes with 8-bit integers in place of 32-bit floats (FP32). AP is the "
    "accuracy, from 0 to 100.",
)
_TWELVE = (
    "The model, `tiny`, has 1.6 million parameters. It was trained from scratch on 205 pictures of "
    "blood cells (BCCD). The demo measures it on 12 of the 72 test pictures.",
    "12 pictures with 150 cells show that every step works, and that INT8 finds nearly the same "
    "cells as FP32. They cannot tell how accurate a model is: on all 72 test pictures the AP of "
    "the FP32 file is 58.9. A difference of one or two AP points on 12 pictures is chance, so the "
    f"gate of this demo allows {MAX_DROP:g}.",
    "The INT8 ranges come from 12 training pictures. The gate does not measure on these, as INT8 "
    "would look better than it is on the pictures that it was made for.",
    "For a decision of your own, calibrate on 100 pictures or more, and measure on some hundreds "
    "of others. The times are of one short run on this machine: trust the ratio more than the "
    "milliseconds.",
)


def results_table(out: Path) -> Table:
    """FP32 against INT8: AP, milliseconds and megabytes, from the files that the steps wrote."""
    compared, timed = (
        _read(out / "compare/comparison.json"),
        _read(out / "benchmark/benchmark.json"),
    )
    both = [compared["first"]["figures"], compared["second"]["figures"]]
    files = [out / name for name in compared["names"]]
    ratio = timed["models"][1]["times_as_fast_as_first"]
    return Table(
        head=("", "FP32", "INT8"),
        rows=[
            ("AP on 12 test pictures", *(points(figures["AP"]) for figures in both)),
            ("AP50", *(points(figures["AP50"]) for figures in both)),
            ("ms a picture, median", *(f"{m['ms']['total']['p50']:.1f}" for m in timed["models"])),
            ("MB of the file", *(f"{file.stat().st_size / 1e6:.1f}" for file in files)),
        ],
        notes=[
            f"INT8 is {ratio['value']:.2f} times as fast as FP32 here (95% interval "
            f"{ratio['low']:.2f} to {ratio['high']:.2f}), on {timed['threads']} threads.",
            noise_text(timed["noise"]),
        ],
    )


def write_demo_page(path: Path, done: Sequence[Done], *, table: Table | None, more: str) -> None:
    """Write the page.

    Args:
        path: the HTML file, in the folder that the steps wrote to.
        done: the steps that ran.
        table: what came out, or None.
        more: what the extras would add, or "".
    """
    out, failed = path.parent, [d.step.title for d in done if d.code]
    warnings = [f"WARNING: this step failed: {title}." for title in failed]
    parts: list[str] = [*paragraphs([*(_WORDS if table else _WORDS[:1]), *warnings])]
    if table is not None:
        parts += [table.html(), *paragraphs(table.notes)]
    parts += [
        element(
            "p",
            element("code", "retinart demo"),
            f" took {sum(d.seconds for d in done):.0f} s on this machine: {cpu_name()}. The "
            "instructions of this CPU that matter for speed: "
            f"{', '.join(sorted(instruction_sets()))}.",
        ),
        element("h2", "What it finds"),
        video(out / "video" / "blood.mp4", "Blood cells with boxes, names and scores"),
        element("p", image(out / "detections.jpg", "Six test pictures with the cells found")),
        element("h2", "How it was made" if table is not None else "What was run"),
        *map(_step, done),
    ]
    if more:
        parts += [element("h2", "What the extras add"), *paragraphs(more.split("\n"))]
    parts += [
        element("h2", "What 12 pictures can show, and what they cannot"),
        *paragraphs(_TWELVE if table is not None else _TWELVE[:1]),
        element("h2", "The pictures"),
        element("p", f"From the BCCD_Dataset, MIT licence, copyright 2017 shenggan: {_BCCD}"),
    ]
    write_page(path, TITLE, parts)


def _step(done: Done) -> Html:
    output = element("pre", done.output.strip())
    return joined(
        [
            element("h3", f"{done.step.title} ({done.seconds:.1f} s)"),
            element("p", done.step.why),
            element("p", element("code", done.step.command)),
            details("Its output", [output]),
        ]
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
