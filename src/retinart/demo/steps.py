"""The demo's steps: each is a command that a user can type, with its output."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# AP points that INT8 may lose. On twelve pictures one cell more or less moves AP by some tenths.
MAX_DROP = 2.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of `retinart`.

    Attributes:
        title: what it does.
        why: a sentence on what its output means.
        words: of the command line, after `retinart`.
        brief: its output is long and stands on the page only.
    """

    title: str
    why: str
    words: tuple[str, ...]
    brief: bool = False

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(("retinart", *self.words))


@dataclass(frozen=True, kw_only=True)
class Done:
    """A step that ran.

    Attributes:
        code: its exit code; 1 means that a check failed.
        output: what it printed on stdout and stderr.
    """

    step: Step
    code: int
    output: str
    seconds: float


def full_steps(out: Path) -> list[Step]:
    """From the checkpoint to a benchmark, in a folder that holds the shipped files."""
    fp32, int8 = out / "bccd.onnx", out / "bccd.int8.onnx"
    test, calibration, annotations = out / "test", out / "calibration", out / "test.json"
    return [
        _step(
            "Export the checkpoint to ONNX",
            "The command compares PyTorch and the file on pictures, and writes the file only if "
            "they agree. Decoding and NMS are in the file.",
            *("export", out / "bccd.pt", "-o", fp32, "--height", 256, "--width", 320),
            *("--images", calibration, "--skip-tensorrt"),
        ),
        _step(
            "Make an INT8 file",
            "The ranges of the activations come from 12 training pictures, which are not among "
            "the test pictures.",
            *("calibrate", fp32, "--images", calibration, "--num", 12, "-o", int8),
        ),
        _check(int8),
        _step(
            "Compare the accuracy of the two, with a gate",
            f"The exit code is 1 if INT8 loses more than {MAX_DROP:g} AP points. The limit is "
            f"{MAX_DROP:g} because 12 pictures are few: with a few hundred, use 0.5. 12 may leave "
            "it undecided, and --undecided pass accepts that. In your CI leave that option out.",
            *("eval", fp32, "--against", int8, "--max-drop", f"{MAX_DROP:g}"),
            *("--undecided", "pass", "--images", test, "--annotations", annotations),
            *("--out", out / "compare", "--overwrite"),
        ),
        *_detect(out, int8),
        _step(
            "Time the two side by side",
            "Each runs in a process of its own, and they take turns picture by picture.",
            *("benchmark", fp32, int8, "--images", test, "--num-images", 6, "--repeats", 5),
            *("--out", out / "benchmark", "--overwrite"),
            brief=True,
        ),
    ]


def short_steps(out: Path) -> list[Step]:
    """What the install without extras can do, with the ONNX file that is shipped."""
    model = out / "bccd.onnx"
    return [_check(model), *_detect(out, model)]


def run_steps(steps: Sequence[Step], run: Callable[[Sequence[str]], int]) -> list[Done]:
    """Run the steps in turn, until one fails with more than a failed check.

    Args:
        steps: to run.
        run: runs a command line and returns its exit code.
    """
    done = []
    for number, step in enumerate(steps, 1):
        lines = (f"\n[{number}/{len(steps)}] {step.title}", step.why, f"$ {step.command}")
        print("\n".join(filter(None, lines)), file=sys.stderr)
        text = io.StringIO()
        begun = time.perf_counter()
        out, err = (_Tee(s, text, hidden=step.brief) for s in (sys.stdout, sys.stderr))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(step.words)
        seconds = time.perf_counter() - begun
        done.append(Done(step=step, code=code, output=text.getvalue(), seconds=seconds))
        if step.brief and code > 0:
            print(text.getvalue(), file=sys.stderr)
        if code > 1:
            break
    return done


class _Tee(io.TextIOBase):
    """Writes to a text and, unless it is hidden, to a stream.

    It is no terminal, so progress comes as plain lines. They go to the stream alone.
    """

    def __init__(self, stream: Any, text: io.StringIO, *, hidden: bool) -> None:
        self.progress, self._text, self._hidden = stream, text, hidden

    def write(self, text: str, /) -> int:
        self._text.write(text)
        if not self._hidden:
            self.progress.write(text)
        return len(text)

    def flush(self) -> None:
        self.progress.flush()


def _check(model: Path) -> Step:
    return _step(
        "Test this machine",
        "The file carries its own self-test: does this machine compute what the file should?",
        *("check", model),
    )


def _detect(out: Path, model: Path) -> list[Step]:
    return [
        _step(
            "Detect in pictures",
            "Scores from 0.5 on. Each picture's boxes and scores are in detections.jsonl.",
            *("detect", model, out / "test", "--conf", "0.5", "--out", out / "pictures"),
            "--overwrite",
        ),
        _step(
            "Detect in a video",
            "The annotated copy is H.264, which browsers play.",
            *("detect", model, out / "blood.mp4", "--conf", "0.5", "--out", out / "video"),
            "--overwrite",
        ),
    ]


def _step(title: str, why: str, *words: object, brief: bool = False) -> Step:
    return Step(title=title, why=why, words=tuple(map(str, words)), brief=brief)
