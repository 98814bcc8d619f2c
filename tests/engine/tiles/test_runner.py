"""A detector that sees pictures in tiles: alone, in a stream, in `eval`, and on every runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from retinart import Detector, Keep, Tiles
from retinart.engine.media.images import Image
from retinart.engine.tiles.merge import Part, merge
from retinart.engine.tiles.runner import innermost, is_tiling
from support import make_picture, read_lines, write_images, write_video

Command = Callable[..., CompletedProcess[str]]
TILES = Tiles(rows=2, columns=2)


def _by_hand(detector: Detector, image: Image) -> Any:
    height, width = image.shape[:2]
    places = [((0, height), (0, width)), *TILES.of((height, width))]
    crops = [np.ascontiguousarray(image[slice(*r), slice(*c)]) for r, c in places]
    parts = [
        Part(place[0], place[1], detector(crop)) for place, crop in zip(places, crops, strict=True)
    ]
    return merge(parts, (height, width), detector.thresholds)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_pictures_in_tiles(model_path: Path, runtime: Any) -> None:
    pictures = [make_picture(1, 192, 256), make_picture(2, 96, 200)]
    with Detector(model_path, runtime=runtime, threads=1) as plain:
        wanted = [_by_hand(plain, picture) for picture in pictures]
        without = plain(pictures[0])
    with Detector(model_path, runtime=runtime, threads=1, tiles=TILES) as detector:
        found = detector(pictures)
        assert is_tiling(detector.runner) and not is_tiling(innermost(detector.runner))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=0.02)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-4)
    assert not np.array_equal(found[0].confidence, without.confidence)


def test_dynamic_sizes_and_rules_after_the_merging(dynamic_model_path: Path) -> None:
    picture, rules = make_picture(1, 192, 256), Keep(classes=("disc",), min_size=12)
    with Detector(dynamic_model_path, threads=1, tiles=TILES) as detector:
        everything = detector(picture)
    with Detector(dynamic_model_path, threads=1, tiles=TILES, keep=rules) as detector:
        found = detector(picture)
    sides = everything.xyxy[:, 2:] - everything.xyxy[:, :2]
    wanted = (everything.class_id == 0) & (sides >= 12).all(axis=1)
    assert 0 < wanted.sum() < len(everything)
    np.testing.assert_allclose(found.xyxy, everything.xyxy[wanted], atol=0.01)


def test_a_picture_that_is_one_tile(model_path: Path) -> None:
    picture = make_picture(1)
    with Detector(model_path, threads=1) as plain:
        wanted = plain(picture)
    with Detector(model_path, threads=1, tiles=Tiles(size=640)) as detector:
        found = detector(picture)
    np.testing.assert_array_equal(found.xyxy, wanted.xyxy)


def test_a_video_has_what_its_frames_have(
    retinart: Command, model_path: Path, tmp_path: Path
) -> None:
    video, out = write_video(tmp_path / "v.mp4", frames=3), tmp_path / "out"
    more = ["--tiles", "2x2", "--no-copies", "--out", out, "--threads", "1"]
    ran = retinart("detect", model_path, video, *more)
    assert ran.returncode == 0, ran.stderr
    lines = read_lines(out / "detections.jsonl")
    with Detector(model_path, threads=1, tiles=TILES) as detector:
        frames = list(detector.stream(video))
    for line, (_, found) in zip(lines, frames, strict=True):
        boxes = [d["box"] for d in line["detections"]]
        np.testing.assert_allclose(boxes, found.xyxy, atol=0.02)


def test_eval_has_them(retinart: Command, model_path: Path, small_scenes: Path) -> None:
    given = ["--images", small_scenes, "--annotations", small_scenes.parent / "instances.json"]
    plain = retinart("eval", model_path, *given, "--json")
    tiled = retinart("eval", model_path, *given, "--json", "--tiles", "2x2", "--overlap", "0.3")
    assert (plain.returncode, tiled.returncode) == (0, 0), tiled.stderr
    assert json.loads(plain.stdout) != json.loads(tiled.stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles", "2by2"], "'2by2' are no tiles"),
        (["--tiles", "2x2", "--overlap", "0.9"], "--overlap is 0.9. Give a share from 0 to 0.5."),
        (["--overlap", "0.3"], "--overlap is for tiles, and none are given. Give --tiles."),
    ],
)
def test_tiles_that_make_no_sense(
    retinart: Command, model_path: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    images = write_images(tmp_path / "in", "a.png")
    ran = retinart("detect", model_path, images, *options, "--out", tmp_path / "out")
    assert (ran.returncode, ran.stdout) == (2, "") and message in ran.stderr
