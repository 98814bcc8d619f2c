"""Kill commands at random moments, run each again, and look at what is left: `make kill N=100`.

After a kill every file under a final name must be whole. After the second run, which must succeed,
no temporary file and no lock may be left. The script prints a table of counts and ends with 1 if
anything failed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retinart.engine.common.table import Table
from retinart.engine.model.info import read_info

RETINART = [sys.executable, "-m", "retinart"]
TEMPORARY = (".retinart-*", ".retinart.lock", ".*.calibrating.json")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command that is killed.

    Attributes:
        name: of the command.
        first: its words, given the folder that it writes to.
        again: the words of the second run, where they differ.
    """

    name: str
    first: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]] | None = None


def main() -> int:
    """Kill, run again, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=100, help="kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--only", help="kill this command only")
    parser.add_argument("--out", type=Path, help="write the table here, as Markdown")
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="retinart-kill-") as folder:
        work = Path(folder)
        cases = [c for c in prepare(work) if args.only in (None, c.name)]
        seconds = {case.name: time_of(case, work) for case in cases}
        kills: Counter[str] = Counter()
        early: Counter[str] = Counter()
        failures: list[tuple[str, str]] = []
        for number in range(args.num):
            case = cases[number % len(cases)]
            moment = random.uniform(0.2, 1.0) * seconds[case.name]
            killed, found = try_once(case, work / f"{case.name}-{number}", moment)
            kills[case.name] += killed
            early[case.name] += not killed
            failures += [(case.name, what) for what in found]
            print(f"{number + 1}/{args.num} {case.name} at {moment:.1f} s: {found or 'ok'}",
                  file=sys.stderr)  # fmt: skip
    wrong = Counter(name for name, _ in failures)
    table = Table(
        head=["command", "seconds", "killed", "ended before", "failures"],
        rows=[
            (case.name, f"{seconds[case.name]:.1f}", kills[case.name], early[case.name],
             wrong[case.name])
            for case in cases
        ],
    )  # fmt: skip
    print(table.text())
    if args.out is not None:
        args.out.write_text(table.markdown() + "\n", encoding="utf-8")
    for name, what in failures:
        print(f"{name}: {what}")
    return 1 if failures else 0


def prepare(work: Path) -> list[Case]:
    """Make what the commands read, and the commands."""
    scenes, model, tiny = work / "scenes", work / "model.onnx", "../train/assets/tiny.pt"
    size = ["--height", "64", "--width", "64"]
    images, annotations = str(scenes / "images"), str(scenes / "instances.json")
    run(["make-scenes", str(scenes), "--num", "8"])
    run(["export", tiny, "-o", str(model), *size, "--skip-tensorrt"])
    data = ["--images", images, "--annotations", annotations]
    train = [
        "train",
        *data,
        "--epochs",
        "2",
        "--batch",
        "4",
        *size,
        "--workers",
        "0",
        "--name",
        "run",
    ]
    curve = ["curve", tiny, "--imgsz", "64", *data, "--calibration-images", images,
             "--calibration-num", "2", "--num-images", "1", "--repeats", "2"]  # fmt: skip
    return [
        Case(
            name="detect",
            first=lambda out: ["detect", str(model), images, "--out", str(out), "--csv",
                               str(out / "a.csv"), "--coco", str(out / "a.json")],
            again=lambda out: ["detect", str(model), images, "--out", str(out), "--csv",
                               str(out / "a.csv"), "--coco", str(out / "a.json"), "--overwrite"],
        ),
        Case(
            name="calibrate",
            first=lambda out: ["calibrate", str(model), "--images", images, "--num", "8",
                               "-o", str(out / "a.int8.onnx")],
        ),
        Case(name="convert", first=lambda out: ["convert", str(model), "-o", str(out / "a.onnx")]),
        Case(
            name="export",
            first=lambda out: ["export", tiny, "-o", str(out / "a.onnx"), *size, "--skip-tensorrt"],
        ),
        Case(
            name="build",
            first=lambda out: ["build", str(model), "-o", str(out / "a.engine")],
        ),
        Case(
            name="train",
            first=lambda out: [*train, "--out", str(out)],
            again=lambda out: ["train", "--resume", str(out / "run")]
            if (out / "run/last.pt").exists() else [*train, "--out", str(out)],
        ),
        Case(name="curve", first=lambda out: [*curve, "--out", str(out)]),
        Case(
            name="bundle",
            first=lambda out: ["bundle", str(model), "--for", "triton", "-o", str(out / "r")],
            # A bundle that is there is whole; making it again is refused.
            again=lambda out: ["inspect", str(out / "r/model/1/model.onnx")]
            if (out / "r").exists()
            else ["bundle", str(model), "--for", "triton", "-o", str(out / "r")],
        ),
        Case(name="make-scenes", first=lambda out: ["make-scenes", str(out / "s"), "--num", "40"]),
    ]  # fmt: skip


def run(words: Sequence[str]) -> None:
    """Run a command, which must succeed."""
    done = subprocess.run([*RETINART, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


def time_of(case: Case, work: Path) -> float:
    """Seconds that a command takes when it is left alone."""
    out = work / f"{case.name}-whole"
    start = time.perf_counter()
    run(case.first(out))
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds


def try_once(case: Case, out: Path, moment: float) -> tuple[bool, list[str]]:
    """Kill a command after some seconds, look, run it again, and look again.

    Returns:
        Whether it was still running, and what is wrong.
    """
    command = [*RETINART, *case.first(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child.wait(moment)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    killed = child.wait() == -signal.SIGKILL
    wrong = [f"after the kill: {what}" for what in halves(out)]
    again = (case.again or case.first) if killed else None
    if again is not None:
        done = subprocess.run(
            [*RETINART, *again(out)], capture_output=True, text=True, check=False, timeout=600
        )
        finished = "finished" in done.stderr and case.name == "train"  # killed at its very end
        if done.returncode and not finished:
            wrong.append(f"the second run ended with {done.returncode}: {done.stderr[-300:]}")
    wrong += [f"after the second run: {what}" for what in halves(out)]
    wrong += [f"left: {path.relative_to(out)}" for path in leftovers(out)]
    shutil.rmtree(out, ignore_errors=True)
    return killed, wrong


def leftovers(out: Path) -> Iterator[Path]:
    """Temporary files and locks of ours below a folder."""
    for pattern in TEMPORARY:
        yield from out.rglob(pattern)


def halves(out: Path) -> Iterator[str]:
    """Files below a folder that have their name and are not whole."""
    for path in sorted(p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            check_whole(path)
        except Exception as error:  # any of a reader
            yield f"{path.name}: {type(error).__name__}: {error}"


def check_whole(path: Path) -> None:
    """Read a file to its end.

    Raises:
        Exception: it is not whole.
    """
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        lines = path.read_text().split("\n")
        for line in lines[:-1]:  # a line that is being written may be cut
            json.loads(line)
    elif path.suffix == ".onnx":
        read_info(path)
    elif path.suffix == ".pt":
        import torch

        torch.load(path, weights_only=True)
    elif path.suffix in (".png", ".jpg"):
        from PIL import Image

        Image.open(path).load()


if __name__ == "__main__":
    sys.exit(main())
