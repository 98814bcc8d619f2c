"""The pictures of a job in shards, and the order of their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from retinart.engine.errors import BadInput
from retinart.engine.media.frame import Chooser
from retinart.engine.media.image_source import ImageSource
from retinart.engine.media.settings import StreamSettings
from retinart.engine.media.sources import Sources, is_live

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some of a source's pictures.

    Attributes:
        source_index: of the source.
        pictures: index in the source and path of each.
    """

    source_index: int
    pictures: Sequence[tuple[int, Path]]

    @property
    def paths(self) -> list[str]:
        """As another process finds them."""
        return [str(path.absolute()) for _, path in self.pictures]


def picture_sources(names: Sequence[str], settings: StreamSettings) -> list[ImageSource]:
    """Sources that all hold pictures.

    Raises:
        BadInput: one is a video or live, or none is there.
    """
    fix = "Leave out --ray, or give pictures: a file, a folder, a glob or numbered images"
    for name in names:
        if is_live(name):
            raise BadInput("Ray's actors detect on pictures", why=f"{name} is live", fix=fix)
    opened = Sources(names, selection=settings, settings=settings)
    opened.close()
    sources = list[ImageSource]()
    for source in opened.all:
        if not isinstance(source, ImageSource):
            why = f"{source.name} is a video"
            raise BadInput("Ray's actors detect on pictures", why=why, fix=fix)
        sources.append(source)
    return sources


def plan(sources: Sequence[ImageSource], settings: StreamSettings, size: int) -> list[Shard]:
    """The chosen pictures in shards of at most a size; the counts of what is left out are set."""
    shards = []
    for source_index, source in enumerate(sources):
        choose, taken = Chooser(settings), list[tuple[int, Path]]()
        for index, path in enumerate(source.files):
            choice = choose(index, None)
            if choice == "end":
                break
            source.counts.read += 1
            if choice == "take":
                taken.append((index, path))
            else:
                source.counts.skipped += 1
        shards += [
            Shard(source_index=source_index, pictures=taken[i : i + size])
            for i in range(0, len(taken), size)
        ]
    return shards


def in_turn(iterators: Iterable[Iterator[T]]) -> Iterator[T]:
    """One of each, again and again, until all have ended: as a stream takes frames of sources."""
    left = list(iterators)
    while left:
        for one in list(left):
            try:
                yield next(one)
            except StopIteration:
                left.remove(one)
