"""The formats that are fuzzed: good files, how they are damaged, and what reads them."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fuzz import mutators, strategies, uses
from fuzz.children import run
from fuzz.mutators import Mutator
from fuzz.strategies import File
from fuzz.uses import Uses
from retinart.cli.export import read_names
from retinart.engine.keep.areas import read_areas
from retinart.export.checkpoint import load_any
from support import SCENES_CHECKPOINT

DRAWN = 4
_BLOCK = 10  # files that a strategy draws at once


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file.

    Attributes:
        name: for people.
        suffix: of its files.
        good: bytes of good files.
        damage: makes a bad file of one.
        strategy: draws files, which one of DRAWN inputs is.
        use: reads a file as a command does.
        native: whether native code reads it, so that only a child process may.
        every: rounds between two inputs; more than 1 where a good file takes long.
    """

    name: str
    suffix: str
    good: Sequence[bytes]
    damage: Mutator
    strategy: File | None = None
    use: Callable[[Path], object]
    native: bool = False
    every: int = 1

    def make(self, seed: int) -> bytes:
        """The input of a seed."""
        turn, last = divmod(seed, DRAWN)
        if self.strategy is not None and last == DRAWN - 1:
            block, index = divmod(turn, _BLOCK)
            files = _drawn(self.name, block, self.strategy)
            return files[index % len(files)]
        rng = random.Random(f"{self.name} {seed}")
        return self.damage(rng.choice(self.good), rng)


@functools.lru_cache(maxsize=64)
def _drawn(name: str, block: int, strategy: File) -> list[bytes]:
    number = int.from_bytes(f"{name} {block}".encode(), "big")
    return strategies.drawn(strategy, _BLOCK, from_seed=number)


def formats(folder: Path) -> list[Format]:
    """All formats. The good files are made in a folder, which takes some seconds."""
    made = run(lambda: uses.make_files(folder), seconds=600)  # the threads of libraries end with it
    assert made.kind == "0", made
    use = Uses(folder)
    model_bytes = [(folder / f"{name}.onnx").read_bytes() for name in uses.MODELS]

    def onnx(name: str, use: Callable[[Path], object]) -> Format:
        return Format(
            name=f"ONNX, {name}", suffix=".onnx", good=model_bytes, damage=mutators.any_onnx,
            strategy=strategies.graphs(model_bytes[0]), use=use, native=True,
        )  # fmt: skip

    def plain(name: str, good: bytes | str, use: Callable[[Path], object]) -> Format:
        data = (folder / good).read_bytes() if isinstance(good, str) else good
        return Format(
            name=name, suffix=".json", good=[data], damage=mutators.any_json,
            strategy=strategies.documents(data), use=use,
        )  # fmt: skip

    def torch(name: str, good: bytes, use: Callable[[Path], object], every: int = 1) -> Format:
        return Format(
            name=name, suffix=".pt", good=[good], damage=mutators.any_checkpoint,
            strategy=strategies.checkpoints(good), use=use, native=True, every=every,
        )  # fmt: skip

    def annotations(name: str, suffix: str, good: bytes) -> Format:
        return Format(
            name=name, suffix=suffix, good=[good], damage=mutators.any_words, use=use.annotations
        )

    def media(name: str, suffix: str, good: Sequence[bytes]) -> Format:
        return Format(
            name=name, suffix=suffix, good=good, damage=mutators.any_bytes, use=use.frames,
            native=True,
        )  # fmt: skip

    return [
        onnx("inspect", use.inspect),
        onnx("OpenVINO", use.detect),
        onnx("ONNX Runtime", partial(use.detect, runtime="onnxruntime")),
        onnx("convert", use.convert),
        onnx("calibrate", use.calibrate),
        plain("engine's record", uses.engine_record(use.float_file), use.engine),
        plain("calibration record", "int8.json", use.record),
        plain("kept steps", "steps.json", use.steps),
        plain("kept results", "saved.json", use.kept_results),
        plain("benchmark to compare", uses.baseline(), use.baseline),
        plain("run's settings", "run/config.json", use.run_settings),
        plain("COCO", "scenes/instances.json", use.coco),
        annotations("YOLO labels", ".txt", uses.YOLO_LABELS),
        annotations("YOLO names", ".yaml", b"train: images\nnames:\n  0: disc\n  1: ring\n"),
        annotations("Pascal VOC", ".xml", uses.VOC),
        plain("areas", uses.AREAS, read_areas),
        plain("scenes of before", "scenes/instances.json", use.scenes_again),
        torch("checkpoint", SCENES_CHECKPOINT.read_bytes(), load_any),
        torch("checkpoint of torchvision", uses.foreign_checkpoint(), load_any),
        torch("last checkpoint of a run", (folder / "run/last.pt").read_bytes(), use.last, 3),
        Format(
            name="pickle", suffix=".pkl", good=[uses.arrays()], damage=mutators.any_pickle,
            strategy=strategies.pickles(), use=use.pickled,
        ),
        Format(
            name="class names", suffix=".txt", good=[b"disc\nring\n", "Größe\n".encode()],
            damage=mutators.any_text, strategy=strategies.names(), use=read_names,
        ),
        media("picture", "", uses.pictures()),
        media("video MP4", ".mp4", [(folder / "video.mp4").read_bytes()]),
        media("video AVI", ".avi", [(folder / "video.avi").read_bytes()]),
    ]  # fmt: skip
