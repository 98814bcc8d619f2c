"""Model files against each other and against peers, from a decoded frame to its final boxes.

Each runs in a process of its own. They take turns image by image, so a load that slows the
machine slows all of them. A fixed workload is timed between the repeats, and its spread says how
far the figures can be trusted.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from retinart.benchmarks.latency.shares import count_for_image, with_shares
from retinart.benchmarks.peers.find import Peer, find_peers, same_size
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.contestants import (
    Booth,
    Entrant,
    OurDetector,
    Recipe,
    take_turns,
)
from retinart.benchmarks.timing.peaks import Peaks, measure_gpu_peaks, measure_peaks
from retinart.benchmarks.timing.results import Benchmark, LeftOut, ModelTimes, PeerTimes
from retinart.benchmarks.timing.settings import BenchmarkSettings, Setting
from retinart.benchmarks.timing.worker import Lost, Worker
from retinart.engine.common.files import sha256
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
from retinart.engine.evaluation.evaluate import check_evaluation, evaluate
from retinart.engine.keep.keeper import Keeper
from retinart.engine.media.images import list_images, read_image
from retinart.engine.model.info import Compute, ModelInfo, computed_in, read_info
from retinart.engine.runtime.openvino_api import has_bf16
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings

SCENES = (480, 640)  # height and width of drawn scenes, which are 4:3 as fixed inputs are
_OTHER = "Give other models, or another `compute`"


class _Row(NamedTuple):
    """A model file, and what its float layers are computed in."""

    path: Path
    info: ModelInfo
    compute: Compute


def benchmark(models: Sequence[Path], settings: BenchmarkSettings) -> Benchmark:
    """Time every model on the same images.

    Raises:
        BadInput: a model, the images or the checkpoint cannot be used.
        CheckFailed: a peer gives its network another size than we do.
        MissingDependency: no model can run here.
    """
    if settings.images is not None:
        return _Bench(models, settings, settings.images).run()
    with tempfile.TemporaryDirectory() as folder:
        out, size = Path(folder) / "scenes", SceneSettings(size=SCENES)
        make_scenes(out, num=settings.num_images, seed=0, settings=size)
        return _Bench(models, settings, str(out / "images")).run()


class _Bench:
    """A benchmark while it runs, on images that are there."""

    def __init__(self, models: Sequence[Path], settings: BenchmarkSettings, images: str) -> None:
        if len(set(models)) < len(models):
            raise BadInput("a model is named twice", fix="Name each file once")
        self._settings, self._source = settings, images
        infos = [read_engine_info(p).model if is_engine(p) else read_info(p) for p in models]
        both = zip(models, infos, strict=True)
        self._rows = [_Row(path, info, c) for path, info in both for c in settings.compute]
        self._files = {path.name: path for path in models}
        self._images = list_images(images)
        self._models, self._peers = list[ModelTimes](), list[PeerTimes]()
        self._left_out, self._reference_ms = list[LeftOut](), list[float]()
        # what would otherwise come up in the middle, or at the end
        for path in self._images[: settings.num_images]:
            read_image(path)
        for info, imgsz in itertools.product(infos, settings.imgsz):
            info.at_imgsz(imgsz)
        for info in infos:
            if settings.keep is not None:
                Keeper(settings.keep, info, info.thresholds)
        self._find_peers(self._rows)
        if settings.annotations is not None:
            for classes in dict.fromkeys(info.classes for info in infos):
                check_evaluation(classes, settings.annotations, Path(images))

    def run(self) -> Benchmark:
        """Measure everything."""
        s = self._settings
        gpu = gpu_peaks() if any(map(is_engine, self._files.values())) else None
        peaks = measure_peaks(s.threads)
        for setting in s.settings:
            self._run_setting(setting)
        peaks |= measure_peaks(s.threads)
        self._models = [
            with_shares(row, gpu if is_engine(self._files[row.file]) else peaks)
            for row in self._models
        ]
        if s.annotations is not None:
            self._add_accuracy(s.annotations)
        drawn = s.images is None
        return Benchmark(
            what="from a decoded BGR frame to final boxes, interleaved, "
            + ("drawn scenes" if drawn else "real images"),
            drawn=drawn,
            images=tuple(path.name for path in self._images),
            repeats=s.repeats,
            threads=s.threads,
            machine=machine.describe("onnxruntime", "torch"),
            peak_gops=peaks,
            gpu_peak_gops=gpu,
            reference_ms=tuple(self._reference_ms),
            noise=statistics.spread(self._reference_ms),
            models=tuple(self._models),
            peers=tuple(self._peers),
            left_out=tuple(dict.fromkeys(self._left_out)),
        )

    def _find_peers(self, rows: Sequence[_Row]) -> list[Peer | LeftOut]:
        """The peers of the first FP32 model, or of the first model where no file is in FP32."""
        first = next((row for row in rows if row.info.precision == "fp32"), rows[0])
        return find_peers(first.path, first.info, self._settings)

    def _run_setting(self, setting: Setting) -> None:
        """All models and peers in one setting, in turn."""
        rows, s = self._rows, self._settings
        if setting.imgsz is not None:
            rows = [row._replace(info=row.info.at_imgsz(setting.imgsz)) for row in rows]
        found = self._find_peers(rows)
        self._left_out += [peer for peer in found if isinstance(peer, LeftOut)]
        peers = [peer for peer in found if isinstance(peer, Peer)]
        if any(peer.own_size for peer in peers):
            self._images = self._equal_for_all(rows[0].info)
        self._images = self._images[: s.num_images]
        with contextlib.ExitStack() as stack:

            def enter(recipe: Recipe) -> Entrant:
                booth = partial(Booth, recipe, self._images, s.threads)
                return Entrant(stack.enter_context(Worker(booth)))

            ours = self._enter_models(rows, setting, enter)
            first = ours[0][1]
            theirs = self._enter_peers(peers, first, enter)
            self._reference_ms += take_turns(
                [entrant for _, entrant in (*ours, *theirs)],
                setting,
                repeats=s.repeats,
                images=len(self._images),
            )
            for row, entrant in ours:
                times = ModelTimes(
                    model=setting.name(row.path, row.compute),
                    file=row.path.name,
                    sha256=sha256(row.path),
                    precision=computed_in(row.info.precision, row.compute),
                    compute=row.compute,
                    batch=setting.batch,
                    streams=setting.streams,
                    times_as_fast_as_first=entrant.times_as_fast_as(first),
                    times_as_fast_as={p.name: entrant.times_as_fast_as(e) for p, e in theirs},
                    **count_for_image(row.path, entrant.sizes),
                    **entrant.times(setting),
                )
                self._models.append(times)
            for peer, entrant in theirs:
                times_of_peer = entrant.times(setting)
                self._peers.append(PeerTimes(peer=peer.name, what=peer.what, **times_of_peer))

    def _enter_models(
        self, rows: Sequence[_Row], setting: Setting, enter: Callable[[Recipe], Entrant]
    ) -> list[tuple[_Row, Entrant]]:
        """The rows that run here; at least one."""
        ours = []
        for row in rows:
            s = self._settings
            recipe = partial(
                OurDetector, row.path, threads=s.threads, imgsz=setting.imgsz, compute=row.compute,
                conf=s.conf, keep=s.keep,
            )  # fmt: skip
            try:
                if row.compute == "bf16" and not has_bf16():
                    raise MissingDependency("this CPU has no bf16 instructions", fix=_OTHER)
                ours.append((row, enter(recipe)))
            except MissingDependency as error:
                name = setting.name(row.path, row.compute)
                self._left_out.append(LeftOut(name=name, why=error.what))
        if not ours:
            why = "; ".join(f"{left.name}: {left.why}" for left in self._left_out)
            raise MissingDependency("no model can run here", why=why, fix=_OTHER)
        return ours

    def _enter_peers(
        self, peers: Sequence[Peer], first: Entrant, enter: Callable[[Recipe], Entrant]
    ) -> list[tuple[Peer, Entrant]]:
        """The peers that run here and do the same work as our first model."""
        theirs = []
        for peer in peers:
            try:
                theirs.append((peer, enter(peer.recipe)))
            except (RetinartError, ImportError, Lost) as error:
                why = f"it does not run here: {str(error).strip().splitlines()[-1]}"
                self._left_out.append(LeftOut(name=peer.name, why=why))
                continue
            if (sizes := theirs[-1][1].sizes) != first.sizes:
                raise CheckFailed(
                    f"{peer.name} gives its network {sizes[0]}, and we {first.sizes[0]}",
                    why="they would not do the same work",
                    fix=f"Leave it out of `peers`, or use other images than {first.sizes}",
                )
        return theirs

    def _equal_for_all(self, info: ModelInfo) -> list[Path]:
        """The first images that a peer gives the file's size."""
        images = list_images(self._source)
        chosen = list(itertools.islice(same_size(images, info), self._settings.num_images))
        if not chosen:
            raise BadInput(
                f"a peer would resize each of the {len(images)} images to another size than the "
                "file",
                why="its input is 4:3, and none of them is",
                fix="Give images such as 640x480, or a file of `retinart export --dynamic`",
            )
        return chosen

    def _add_accuracy(self, annotations: Path) -> None:
        """AP of each row, over all annotated images."""
        done: dict[tuple[str, int | None, Compute], dict[str, Any]] = {}
        for i, row in enumerate(self._models):
            key = (row.file, row.imgsz, row.compute)
            if key not in done:
                with Detector(
                    self._files[row.file], threads=self._settings.threads, imgsz=row.imgsz,
                    compute=row.compute, conf=self._settings.conf, keep=self._settings.keep,
                ) as detector:  # fmt: skip
                    found = evaluate(detector, annotations, Path(self._source))
                done[key] = {"ap": found.figures["AP"], "ap50": found.figures["AP50"]}
            self._models[i] = replace(row, **done[key])


def gpu_peaks() -> Peaks | None:
    """The GPU's peaks. When they cannot be measured, a line on stderr says why."""
    try:
        return measure_gpu_peaks()
    except Exception as error:  # a GPU can raise anything, and the times are of use without peaks
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"the GPU's peaks are not measured: {text}", file=sys.stderr)
        return None
