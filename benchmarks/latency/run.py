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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from retinart.benchmarks.latency.settings import BenchmarkSettings
from retinart.benchmarks.latency.shares import count_for_image, with_shares
from retinart.benchmarks.peers.find import Peer, find_peers, same_size
from retinart.benchmarks.timing import machine, statistics
from retinart.benchmarks.timing.contestants import Booth, OurDetector, Recipe
from retinart.benchmarks.timing.entrants import Entrant, take_turns
from retinart.benchmarks.timing.peaks import Peaks, measure_gpu_peaks, measure_peaks
from retinart.benchmarks.timing.results import Benchmark, LeftOut, ModelTimes, PeerTimes
from retinart.benchmarks.timing.setting import Setting
from retinart.benchmarks.timing.worker import Lost, Worker
from retinart.engine.common.files import sha256
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed, MissingDependency, RetinartError
from retinart.engine.evaluation.evaluate import check_evaluation, evaluate
from retinart.engine.media.images import list_images
from retinart.engine.model.info import Compute, ModelInfo, computed_in, read_info
from retinart.engine.runtime.openvino_runner import has_bf16
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings

_OTHER = "Give other models, or another --compute"
SCENES = (480, 640)  # height and width of drawn scenes, which are 4:3 as fixed inputs are


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A model file, and what its float layers are computed in."""

    path: Path
    info: ModelInfo
    compute: Compute


@dataclass(frozen=True, kw_only=True)
class _Group:
    """What one setting gave."""

    images: list[Path]
    reference_ms: list[float]
    models: list[ModelTimes]
    peers: list[PeerTimes]
    left_out: list[LeftOut]


def benchmark(models: Sequence[Path], settings: BenchmarkSettings) -> Benchmark:
    """Time every model on the same images.

    Raises:
        BadInput: a model, the images or the checkpoint cannot be used.
        CheckFailed: a peer gives its network another size than we do.
        MissingDependency: no model can run here.
    """
    if settings.images is not None:
        return _measure(models, settings, settings.images)
    with tempfile.TemporaryDirectory() as folder:
        out, size = Path(folder) / "scenes", SceneSettings(size=SCENES)
        make_scenes(out, num=settings.num_images, seed=0, settings=size)
        return _measure(models, settings, str(out / "images"))


def _measure(models: Sequence[Path], settings: BenchmarkSettings, images: str) -> Benchmark:
    """As `benchmark`, on images that are there."""
    if len(set(models)) < len(models):
        raise BadInput("a model is named twice", fix="Name each file once")
    infos = [read_engine_info(p).model if is_engine(p) else read_info(p) for p in models]
    _check(models, infos, settings, images)  # before the work
    gpu = _gpu_peaks() if any(map(is_engine, models)) else None
    peaks = measure_peaks(settings.threads)
    rows = [
        _Row(path=path, info=info, compute=compute)
        for path, info in zip(models, infos, strict=True)
        for compute in settings.compute
    ]
    groups = [_measure_group(rows, setting, settings, images) for setting in settings.settings]
    peaks |= measure_peaks(settings.threads)
    reference = [ms for group in groups for ms in group.reference_ms]
    paths = {path.name: path for path in models}
    found = [
        with_shares(row, gpu if is_engine(paths[row.file]) else peaks)
        for group in groups
        for row in group.models
    ]
    drawn = settings.images is None
    return Benchmark(
        what="from a decoded BGR frame to final boxes, interleaved, "
        + ("drawn scenes" if drawn else "real images"),
        drawn=drawn,
        images=tuple(path.name for path in groups[0].images),
        repeats=settings.repeats,
        threads=settings.threads,
        machine=machine.describe("onnxruntime", "torch"),
        peak_gops=peaks,
        gpu_peak_gops=gpu,
        reference_ms=tuple(reference),
        noise=statistics.spread(reference),
        models=tuple(_with_accuracy(found, paths, settings)),
        peers=tuple(peer for group in groups for peer in group.peers),
        left_out=tuple(dict.fromkeys(left for group in groups for left in group.left_out)),
    )


def _gpu_peaks() -> Peaks | None:
    """The GPU's peaks. When they cannot be measured, a line on stderr says why."""
    try:
        return measure_gpu_peaks()
    except Exception as error:  # a GPU can raise anything, and the times are of use without peaks
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"the GPU's peaks are not measured: {text}", file=sys.stderr)
        return None


def _check(
    models: Sequence[Path], infos: Sequence[ModelInfo], settings: BenchmarkSettings, images: str
) -> None:
    """Raise what would otherwise come up in the middle, or at the end."""
    for info, imgsz in itertools.product(infos, settings.imgsz):
        info.at_imgsz(imgsz)
    list_images(images)
    _peers(models, infos, settings)
    if settings.annotations is not None:
        for classes in dict.fromkeys(info.classes for info in infos):
            check_evaluation(classes, settings.annotations, Path(images))


def _peers(
    models: Sequence[Path], infos: Sequence[ModelInfo], settings: BenchmarkSettings
) -> list[Peer | LeftOut]:
    """The peers of the first FP32 model, or of the first model where no file is in FP32."""
    if not settings.peers:
        return []
    first = next((i for i, info in enumerate(infos) if info.precision == "fp32"), 0)
    return find_peers(models[first], infos[first], settings.wanted_peers)


def _measure_group(
    rows: Sequence[_Row], setting: Setting, settings: BenchmarkSettings, images: str
) -> _Group:
    """All models and peers in one setting, in turn."""
    infos = [r.info.at_imgsz(setting.imgsz) if setting.imgsz else r.info for r in rows]
    peers = _peers([r.path for r in rows], infos, settings)
    left_out = [peer for peer in peers if isinstance(peer, LeftOut)]
    paths = list_images(images)
    if any(isinstance(peer, Peer) and peer.own_size for peer in peers):
        paths = _equal_for_all(paths, infos[0], settings.num_images)
    paths = paths[: settings.num_images]
    with contextlib.ExitStack() as stack:

        def enter(recipe: Recipe) -> Entrant:
            booth = partial(Booth, recipe, paths, settings.threads)
            return Entrant(stack.enter_context(Worker(booth)))

        ours: list[tuple[_Row, Entrant]] = []
        for row in rows:
            recipe = partial(
                OurDetector, row.path, threads=settings.threads, imgsz=setting.imgsz,
                compute=row.compute,
            )  # fmt: skip
            try:
                if row.compute == "bf16" and not has_bf16():
                    raise MissingDependency("this CPU has no bf16 instructions", fix=_OTHER)
                ours.append((row, enter(recipe)))
            except MissingDependency as error:
                name = setting.name(row.path, row.compute)
                left_out.append(LeftOut(name=name, why=error.what))
        if not ours:
            why = "; ".join(f"{left.name}: {left.why}" for left in left_out)
            raise MissingDependency("no model can run here", why=why, fix=_OTHER)
        first = ours[0][1]
        theirs: list[tuple[Peer, Entrant]] = []
        for peer in peers:
            if isinstance(peer, LeftOut):
                continue
            try:
                theirs.append((peer, enter(peer.recipe)))
            except (RetinartError, ImportError, Lost) as error:
                why = str(error).strip().splitlines()[-1]
                left_out.append(LeftOut(name=peer.name, why=f"it does not run here: {why}"))
            else:
                _check_sizes(first, *theirs[-1])
        reference = take_turns(
            [entrant for _, entrant in (*ours, *theirs)],
            setting,
            repeats=settings.repeats,
            images=len(paths),
        )
        return _Group(
            images=paths,
            reference_ms=reference,
            models=[
                ModelTimes(
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
                for row, entrant in ours
            ],
            peers=[
                PeerTimes(peer=peer.name, what=peer.what, **entrant.times(setting))
                for peer, entrant in theirs
            ],
            left_out=left_out,
        )


def _equal_for_all(paths: Sequence[Path], info: ModelInfo, count: int) -> list[Path]:
    chosen = list(itertools.islice(same_size(paths, info), count))
    if not chosen:
        raise BadInput(
            f"a peer would resize each of the {len(paths)} images to another size than the file",
            why="its input is 4:3, and none of them is",
            fix="Give images such as 640x480, or a file exported with --dynamic",
        )
    return chosen


def _check_sizes(ours: Entrant, peer: Peer, theirs: Entrant) -> None:
    if ours.sizes != theirs.sizes:
        raise CheckFailed(
            f"{peer.name} gives its network {theirs.sizes[0]}, and we {ours.sizes[0]}",
            why="they would not do the same work",
            fix=f"Leave it out of --peers, or use other images than {ours.sizes}",
        )


def _with_accuracy(
    rows: Sequence[ModelTimes], paths: dict[str, Path], settings: BenchmarkSettings
) -> Iterator[ModelTimes]:
    """The rows with AP over all annotated images, where there are annotations."""
    if settings.annotations is None:
        yield from rows
        return
    done: dict[tuple[str, int | None, Compute], dict[str, Any]] = {}
    for row in rows:
        key = (row.file, row.imgsz, row.compute)
        if key not in done:
            with Detector(
                paths[row.file], threads=settings.threads, imgsz=row.imgsz, compute=row.compute
            ) as detector:
                found = evaluate(detector, settings.annotations, Path(str(settings.images)))
            done[key] = {"ap": found.figures["AP"], "ap50": found.figures["AP50"]}
        yield replace(row, **done[key])
