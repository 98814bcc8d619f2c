"""How pictures are divided, and the order in which their results come together."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinart.engine.cluster.plan import in_turn, picture_sources, plan
from retinart.engine.errors import BadInput
from retinart.engine.media.settings import Position, StreamSettings


def test_every_chosen_picture_is_in_one_shard(images: Path) -> None:
    sources = picture_sources([str(images), str(images / "1.png")], StreamSettings())
    shards = plan(sources, StreamSettings(), size=2)
    got = [(s.source_index, [(i, path.name) for i, path in s.pictures]) for s in shards]
    assert got == [
        (0, [(0, "0.png"), (1, "1.png")]),
        (0, [(2, "2.png")]),
        (1, [(0, "1.png")]),
    ]
    assert [source.counts.read for source in sources] == [3, 1]


def test_a_selection_counts_what_it_leaves_out(images: Path) -> None:
    settings = StreamSettings(every=2, start=Position.parse("1f"))
    sources = picture_sources([str(images)], settings)
    [shard] = plan(sources, settings, size=2)
    assert [index for index, _ in shard.pictures] == [1]
    assert (sources[0].counts.read, sources[0].counts.skipped) == (3, 2)


def test_paths_are_absolute_for_other_processes(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    [shard] = plan(picture_sources(["images/0.png"], StreamSettings()), StreamSettings(), size=9)
    assert shard.paths == [str(images / "0.png")]
    assert str(shard.pictures[0][1]) == "images/0.png"


def test_sources_take_turns_until_each_has_ended() -> None:
    assert list(in_turn([iter("abc"), iter(""), iter("x")])) == ["a", "x", "b", "c"]


@pytest.mark.parametrize("name", ["rtsp://camera/1", "video"])
def test_what_holds_no_pictures_is_refused(name: str, video: Path) -> None:
    source = str(video) if name == "video" else name
    with pytest.raises(BadInput, match=r"detect on pictures: .* is (live|a video)"):
        picture_sources([source], StreamSettings())
