"""Model files against each other and against peers, from a decoded frame to its final boxes.

Each of them runs in a process of its own, and they take turns image by image, so that whatever
slows the machine slows all of them. A fixed piece of arithmetic is timed between the repeats; its
spread says how far the figures can be trusted.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from retinart.benchmarks.peers.find import LeftOut, Peer, PeerSettings, find_peers, same_size
from retinart.benchmarks.timing import limits, machine, statistics
from retinart.benchmarks.timing.turns import Case, Column, interleave
from retinart.benchmarks.timing.workers import Recipe, Retinart, Worker
from retinart.engine.common.files import sha256
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput, CheckFailed, RetinartError
from retinart.engine.evaluation.evaluate import check_evaluation, evaluate
from retinart.engine.media.images import list_images
from retinart.engine.model.info import Compute, ModelInfo, computed_in, read_info
from retinart.engine.tensorrt.engine_file import is_engine, read_engine_info
from retinart.train.data.scenes import make_scenes
from retinart.train.data.settings import SceneSettings

SCENES = (480, 640)  # height and width of those that are drawn: 4:3, as fixed inputs are


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What to measure.

    Attributes:
        images: folder, file or glob of real images, which NMS needs to be what it is in use; None
            for drawn scenes.
        annotations: COCO instances of the folder, to measure AP on; None for no AP.
        imgsz: shorter sides, for files with dynamic sizes; nothing takes the file's own.
        batch: images in a call, each of these.
        streams: calls at once, from a thread each, each of these.
        compute: what float layers are computed in, each of these; see `Detector`.
        peers: names of peers to measure beside the first model, see `benchmarks.peers.find`.
        checkpoint: what that model was exported from, for peers in PyTorch.
        torchvision: folder that torchvision is imported from.
        num_images: how many of them.
        repeats: runs of every image.
        threads: of each runtime.
    """

    images: str | None = None
    annotations: Path | None = None
    imgsz: tuple[int, ...] = ()
    batch: tuple[int, ...] = (1,)
    streams: tuple[int, ...] = (1,)
    compute: tuple[Compute, ...] = ("fp32",)
    peers: tuple[str, ...] = ()
    checkpoint: Path | None = None
    torchvision: Path = Path("build/peers")
    num_images: int = 16
    repeats: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("num_images", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}", fix="Give at least 1")
        for name, most in (("imgsz", 8192), ("batch", 1024), ("streams", 64)):
            values = getattr(self, name)
            if len(set(values)) < len(values) or any(not 1 <= v <= most for v in values):
                raise BadInput(
                    f"{name} is {', '.join(map(str, values))}",
                    fix=f"Give values from 1 to {most}, each once",
                )
        for name in ("compute", "peers"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise BadInput(
                    f"{name} is {', '.join(getattr(self, name))}", fix="Give each of them once"
                )
        if self.peers and (self.batch, self.streams) != ((1,), (1,)):
            raise BadInput("peers run one image at a time", fix="Leave out --batch and --streams")
        if self.annotations is None:
            return
        if self.images is None:
            raise BadInput(
                f"{self.annotations} is given without its images",
                fix="Give their folder with --images",
            )
        if not Path(self.images).is_dir():
            raise BadInput(
                f"{self.images} is no folder", fix="With --annotations, --images is their folder"
            )

    @property
    def wanted_peers(self) -> PeerSettings:
        """Which peers to look for."""
        return PeerSettings(
            names=self.peers,
            checkpoint=self.checkpoint,
            folder=self.torchvision,
            threads=self.threads,
        )

    @property
    def source(self) -> str:
        """`images`, where there are any by now."""
        assert self.images is not None
        return self.images


def benchmark(models: Sequence[Path], settings: BenchmarkSettings) -> dict[str, Any]:
    """Time every model on the same images; plain JSON types, times in milliseconds an image.

    Raises:
        BadInput: a model, the images or the checkpoint cannot be used.
        CheckFailed: a peer gives its network another size than we do.
    """
    if settings.images is not None:
        return _measure(models, settings, drawn=False)
    with tempfile.TemporaryDirectory() as folder:
        out, size = Path(folder) / "scenes", SceneSettings(size=SCENES)
        make_scenes(out, num=settings.num_images, seed=0, settings=size)
        return _measure(models, replace(settings, images=str(out / "images")), drawn=True)


def _measure(models: Sequence[Path], settings: BenchmarkSettings, *, drawn: bool) -> dict[str, Any]:
    """As `benchmark`, on images that are there."""
    if len(set(models)) < len(models):
        raise BadInput("a model is named twice", fix="Name each file once")
    infos = [read_engine_info(p).model if is_engine(p) else read_info(p) for p in models]
    cases = _cases(settings)
    _check(models, infos, settings)  # before the work
    gpu = _gpu_peaks() if any(map(is_engine, models)) else None
    peaks = limits.measure_peaks(settings.threads)
    ours = [
        (path, info, compute)
        for path, info in zip(models, infos, strict=True)
        for compute in settings.compute
    ]
    groups = [_group(ours, case, settings) for case in cases]
    peaks = limits.best(peaks, limits.measure_peaks(settings.threads))
    rows = [row for group in groups for row in group["models"]]
    for row in rows:
        add_shares(row, gpu if is_engine(Path(row["file"])) else peaks)
    reference = [ms for group in groups for ms in group["reference_ms"]]
    if settings.annotations is not None:
        _add_accuracy(rows, {path.name: path for path in models}, settings)
    return {
        "what": "from a decoded BGR frame to final boxes, interleaved, "
        + ("drawn scenes" if drawn else "real images"),
        "drawn": drawn,
        "images": groups[0]["images"],
        "repeats": settings.repeats,
        "threads": settings.threads,
        "machine": machine.describe("onnxruntime", "torch"),
        "peak_gops": asdict(peaks),
        "gpu_peak_gops": asdict(gpu) if gpu else None,
        "reference_ms": reference,
        "noise": statistics.spread(reference),
        "models": rows,
        "peers": [row for group in groups for row in group["peers"]],
        "left_out": groups[0]["left_out"],
    }


def _gpu_peaks() -> limits.Peaks | None:
    """The GPU's limits; None, and a line said, when they cannot be measured."""
    try:
        return limits.measure_gpu_peaks()
    except Exception as error:  # whatever a GPU throws: the figures are worth having without
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"the GPU's limits are not measured: {text}", file=sys.stderr)
        return None


def row_names(models: Sequence[Path], settings: BenchmarkSettings) -> list[str]:
    """What the rows of a benchmark are called."""
    return [
        case.name(path, compute)
        for case in _cases(settings)
        for path in models
        for compute in settings.compute
    ]


def _cases(settings: BenchmarkSettings) -> list[Case]:
    return [
        Case(imgsz=imgsz, batch=batch, streams=streams)
        for imgsz, batch, streams in itertools.product(
            settings.imgsz or (None,), settings.batch, settings.streams
        )
    ]


def _check(models: Sequence[Path], infos: Sequence[ModelInfo], settings: BenchmarkSettings) -> None:
    """Raise what would otherwise be found out in the middle, or at the end."""
    for info, imgsz in itertools.product(infos, settings.imgsz):
        info.at_imgsz(imgsz)
    list_images(settings.source)
    _peers(models, infos, settings)
    if settings.annotations is not None:
        for classes in dict.fromkeys(info.classes for info in infos):
            check_evaluation(classes, settings.annotations, Path(settings.source))


def _group(
    models: Sequence[tuple[Path, ModelInfo, Compute]], case: Case, settings: BenchmarkSettings
) -> dict[str, Any]:
    """All models and peers in one case, in turn."""
    infos = [i if case.imgsz is None else i.at_imgsz(case.imgsz) for _, i, _ in models]
    found = _peers([path for path, _, _ in models], infos, settings)
    left_out = [p for p in found if isinstance(p, LeftOut)]
    paths = list_images(settings.source)
    if any(isinstance(p, Peer) and p.own_size for p in found):
        paths = _equal_for_all(paths, infos[0], settings.num_images)
    paths = paths[: settings.num_images]
    with contextlib.ExitStack() as stack:

        def column(recipe: Recipe) -> Column:
            worker = stack.enter_context(Worker(recipe, paths, threads=settings.threads))
            sizes = [worker.size(i) for i in range(len(paths))]
            return Column(worker=worker, sizes=sizes, first_ms=worker.run(0).ms["total"])

        ours = [
            column(
                Retinart(model=path, threads=settings.threads, imgsz=case.imgsz, compute=compute)
            )
            for path, _, compute in models
        ]
        theirs: list[tuple[Peer, Column]] = []
        for peer in found:
            if isinstance(peer, LeftOut):
                continue
            try:
                theirs.append((peer, column(peer.recipe)))
            except (RetinartError, RuntimeError) as error:  # it is not ours to mend
                why = str(error).strip().splitlines()[-1]
                left_out.append(LeftOut(name=peer.name, why=f"it does not run here: {why}"))
                continue
            _check_sizes(ours[0], *theirs[-1])
        columns = ours + [c for _, c in theirs]
        reference = interleave(columns, case, settings.repeats, len(paths))
        rows = [
            {
                "model": case.name(path, compute),
                "file": path.name,
                "sha256": sha256(path),
                "precision": computed_in(info.precision, compute),
                "compute": compute,
                **asdict(case),
                **c.figures(case),
                **_work(path, c.sizes),
                "times_as_fast_as_first": asdict(_ratio(ours[0], c)),
                "times_as_fast_as": {p.name: asdict(_ratio(other, c)) for p, other in theirs},
            }
            for (path, info, compute), c in zip(models, ours, strict=True)
        ]
        peers = [
            {"peer": p.name, "what": p.what, "imgsz": case.imgsz, **c.figures(case)}
            for p, c in theirs
        ]
    return {
        "models": rows,
        "peers": peers,
        "left_out": [asdict(p) for p in left_out],
        "reference_ms": reference,
        "images": [path.name for path in paths],
    }


def _peers(
    models: Sequence[Path], infos: Sequence[ModelInfo], settings: BenchmarkSettings
) -> list[Peer | LeftOut]:
    """Peers of the first FP32 model, or of the first one where there is none."""
    if not settings.peers:
        return []
    place = next((i for i, info in enumerate(infos) if info.precision == "fp32"), 0)
    return find_peers(models[place], infos[place], settings.wanted_peers)


def _equal_for_all(paths: Sequence[Path], info: ModelInfo, count: int) -> list[Path]:
    chosen = list(itertools.islice(same_size(paths, info), count))
    if not chosen:
        raise BadInput(
            f"a peer would resize each of the {len(paths)} images to another size than the file",
            why="its input is 4:3, and none of them is",
            fix="Give images such as 640x480, or a file exported with --dynamic",
        )
    return chosen


def _check_sizes(ours: Column, peer: Peer, theirs: Column) -> None:
    if ours.sizes != theirs.sizes:
        raise CheckFailed(
            f"{peer.name} gives its network {theirs.sizes[0]}, and we {ours.sizes[0]}",
            why="they would not do the same work",
            fix=f"Leave it out of --peers, or use other images than {ours.sizes}",
        )


def _work(path: Path, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What the graph asks for, as a mean over the images; None for an engine without its ONNX."""
    if is_engine(path):
        onnx = path.with_suffix(".onnx")
        if not onnx.is_file() or sha256(onnx) != read_engine_info(path).onnx_sha256:
            return {"gmac": None, "gvalues": None}
        path = onnx
    counts = Counter(sizes)
    work = {size: limits.count_work(path, size) for size in counts}
    total = sum(counts.values())
    return {
        "gmac": sum(n * work[size].macs for size, n in counts.items()) / total / 1e9,
        "gvalues": sum(n * work[size].values for size, n in counts.items()) / total / 1e9,
    }


def add_shares(row: dict[str, Any], peaks: limits.Peaks | None) -> None:
    """The share of the arithmetic's limit, and of memory's where that was measured."""
    row["share_of_peak"] = row["share_of_bandwidth"] = None
    values = row.pop("gvalues")
    if peaks is None or row["gmac"] is None:
        return
    seconds = row["ms"]["infer"]["p50"] / 1000 / row["streams"]
    row["share_of_peak"] = 2 * row["gmac"] / seconds / peaks.of(row["precision"])
    if peaks.bandwidth is not None:
        moved = values * limits.bytes_of(row["precision"])
        row["share_of_bandwidth"] = moved / seconds / peaks.bandwidth


def _add_accuracy(
    rows: Sequence[dict[str, Any]], paths: dict[str, Path], settings: BenchmarkSettings
) -> None:
    """AP of each model at each scale, over all annotated images."""
    assert settings.annotations is not None
    done: dict[tuple[str, int | None, Compute], dict[str, Any]] = {}
    for row in rows:
        key = (row["file"], row["imgsz"], row["compute"])
        if key not in done:
            with Detector(
                paths[row["file"]],
                threads=settings.threads,
                imgsz=row["imgsz"],
                compute=row["compute"],
            ) as detector:
                found = evaluate(detector, settings.annotations, Path(settings.source))
            done[key] = {"ap": found.figures["AP"], "ap50": found.figures["AP50"]}
        row.update(done[key])


def _ratio(slow: Column, fast: Column) -> statistics.Estimate:
    return statistics.median_of_ratios(slow.turns_ms(), fast.turns_ms())
