"""An evaluation whose pictures Ray's actors detect on: `retinart eval --ray`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from retinart.engine.cluster.actor import ActorSettings, info_of
from retinart.engine.cluster.pool import Pool, PoolSettings
from retinart.engine.cluster.session import HERE, ray_session
from retinart.engine.cluster.shards import PICTURES
from retinart.engine.common.progress import Progress
from retinart.engine.evaluation.evaluate import Evaluation, evaluate_results
from retinart.engine.evaluation.picture_result import PictureResult


def evaluate_on_ray(
    actor: ActorSettings,
    annotations: Path,
    images: Path,
    *,
    address: str = HERE,
    pool: PoolSettings | None = None,
    shard: int = PICTURES,
) -> Evaluation:
    """As `evaluate`, in Ray's actors. It says nothing of times.

    Args:
        actor: what each actor loads.
        annotations, images: see `evaluate`; the driver reads the annotations, and each node finds
            the pictures.
        address: see `ray_session`.
        pool: how many actors there are.
        shard: most pictures of a shard.

    Raises:
        BadInput, MissingDependency: see `evaluate`, `ray_session` and `Pool`.
    """
    detect = partial(_detect, actor, address, pool or PoolSettings(), shard)
    return evaluate_results(info_of(actor.model).classes, annotations, images, detect, quiet=True)


def _detect(
    actor: ActorSettings, address: str, settings: PoolSettings, size: int, paths: Sequence[Path]
) -> Iterator[PictureResult]:
    here = [str(path.absolute()) for path in paths]
    shards = {i: here[i : i + size] for i in range(0, len(here), size)}
    found, progress, done = dict[int, list[PictureResult]](), Progress(), 0
    with ray_session(address) as ray:
        pool = Pool(ray, actor, settings, progress.line)
        for number, results in pool.run(shards):
            found[number] = results
            done += len(results)
            progress.update(done, len(here), "images")
    for number in shards:
        yield from found[number]
