"""A run that is taken up again: what it needs, what it refuses, and what it still does."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

import retinart.engine.common.progress as progress
from retinart.engine.errors import BadInput
from retinart.train.model.checkpoint import load_checkpoint, load_resume_state, save_checkpoint
from retinart.train.model.presets import preset
from retinart.train.model.retinanet import build_retinanet
from retinart.train.settings import TrainSettings, read_settings
from retinart.train.stopped_run import stopped_run
from retinart.train.trainer import train
from retinart.train.validate import Validation
from support import train_and_stop

SIZE = (64, 64)


@pytest.fixture
def settings(tiny_scenes: Path, tmp_path: Path) -> Iterator[TrainSettings]:
    """Two epochs of one step."""
    threads = torch.get_num_threads()
    data = Path(shutil.copytree(tiny_scenes, tmp_path / "data"))
    yield TrainSettings(
        annotations=data / "instances.json", images=data / "images", name="run",
        runs=tmp_path / "runs", size=SIZE, epochs=2, batch_size=4, lr=0.005, threads=1,
    )  # fmt: skip
    torch.set_num_threads(threads)


def test_a_run_does_not_go_on_with_other_images(settings: TrainSettings) -> None:
    """Which images a step sees depends on all that are there."""
    train_and_stop(settings)
    paths = sorted(settings.images.iterdir())
    whole = paths[0].read_bytes()
    paths[0].write_bytes(b"damaged")
    message = rf"1 of its 4 images went away and 0 came;.* 1 unreadable.*{paths[0].name}"
    with pytest.raises(BadInput, match=message):
        train(read_settings(settings.folder), resume=True)
    paths[0].unlink()
    with pytest.raises(
        BadInput, match=r"went away and 0 came; 1 missing image files.*Bring the images"
    ):
        train(read_settings(settings.folder), resume=True)
    paths[0].write_bytes(whole)
    train(read_settings(settings.folder), resume=True)


def test_a_run_does_not_go_on_with_more_images(settings: TrainSettings) -> None:
    path = min(settings.images.iterdir())
    path.rename(path.with_suffix(".away"))
    train_and_stop(replace(settings, batch_size=3))
    path.with_suffix(".away").rename(path)
    with pytest.raises(BadInput, match="0 of its 3 images went away and 1 came"):
        train(read_settings(settings.folder), resume=True)


@pytest.mark.parametrize("damage", [b"", b"PK", None], ids=["empty", "cut", "other content"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(
    settings: TrainSettings, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(settings, epochs=3)
    train_and_stop(settings, after_epoch=2)
    last, previous = settings.folder / "last.pt", settings.folder / "previous.pt"
    assert len(load_resume_state(previous)["rows"]) == 1
    if damage is None:
        content = torch.load(last, weights_only=True)
        del content["resume"]["rows"]
        torch.save(content, last)
    else:
        last.write_bytes(damage)
    train(read_settings(settings.folder), resume=True)
    said = capsys.readouterr().err
    assert "last.pt is damaged" in said and "goes on from the epoch before it" in said
    assert (settings.folder / "last.pt.broken").exists() and not previous.exists()
    assert len((settings.folder / "results.csv").read_text().splitlines()) == 4


def test_a_run_whose_only_checkpoint_is_damaged_begins_anew(
    settings: TrainSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    train_and_stop(settings)
    (settings.folder / "last.pt").write_bytes(b"PK\x03\x04")
    train(read_settings(settings.folder), resume=True)
    assert "the run begins anew" in capsys.readouterr().err
    assert len((settings.folder / "results.csv").read_text().splitlines()) == 3


def test_an_older_checkpoint_goes_on(settings: TrainSettings) -> None:
    """Those of the first versions name no images."""
    train_and_stop(settings)
    last = settings.folder / "last.pt"
    content = torch.load(last, weights_only=True)
    content["resume"].pop("image_ids", None)
    torch.save(content, last)
    assert "image_ids" not in load_resume_state(last)
    train(read_settings(settings.folder), resume=True)


def test_a_run_killed_before_its_pictures_draws_them_when_it_goes_on(
    settings: TrainSettings,
) -> None:
    train_and_stop(replace(settings, epochs=1))
    pictures = [settings.folder / name for name in ("curves.png", "predictions.jpg")]
    assert (settings.folder / "last.pt").exists()
    assert not any(path.exists() for path in pictures)
    train(read_settings(settings.folder), resume=True)
    assert all(path.exists() for path in pictures)
    assert len((settings.folder / "results.csv").read_text().splitlines()) == 2
    with pytest.raises(BadInput, match="is finished"):
        load_resume_state(settings.folder / "last.pt")


def test_a_run_goes_on_without_the_weights_that_it_began_with(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from another working folder, wherever its paths were given from."""
    begun = tmp_path / "begun.pt"
    variant = replace(preset("tiny", 1), fpn_channels=32)
    model = build_retinanet(variant)
    save_checkpoint(begun, model=model, variant=variant, classes=["disc"], training={})
    monkeypatch.chdir(tmp_path)
    near = {
        key: getattr(settings, key).relative_to(tmp_path)
        for key in ("annotations", "images", "runs")
    }
    train_and_stop(replace(settings, weights=Path("begun.pt"), **near))
    begun.unlink()
    monkeypatch.chdir(tmp_path.parent)
    path = train(read_settings(settings.folder), resume=True)
    assert load_checkpoint(path)[1].fpn_channels == 32


def test_the_best_stays_when_ap_falls(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a stop, too: what was best before is kept."""
    figures = iter(({"AP": 0.2, "AP50": 0.2}, {"AP": 0.5, "AP50": 0.6}, {"AP": 0.3, "AP50": 0.9}))

    def run(*_: object) -> SimpleNamespace:
        found = next(figures)
        return SimpleNamespace(figures=found, ap=found["AP"])

    monkeypatch.setattr(Validation, "run", run)
    validated = replace(
        settings, epochs=3, val_annotations=settings.annotations, val_images=settings.images
    )
    train_and_stop(validated, after_epoch=2)
    train(read_settings(settings.folder), resume=True)
    epochs = {
        name: torch.load(settings.folder / name, weights_only=True)["training"]["last_epoch"]
        for name in ("best.pt", "last.pt")
    }
    assert (epochs["best.pt"]["epoch"], epochs["best.pt"]["AP"]) == (2, 0.5)
    assert (epochs["last.pt"]["epoch"], epochs["last.pt"]["AP"]) == (3, 0.3)


def test_tensorboards_events_are_of_every_epoch(settings: TrainSettings) -> None:
    train_and_stop(settings)
    train(read_settings(settings.folder), resume=True)
    assert len(list(settings.folder.glob("events.out.tfevents.*"))) == 2  # one a process
    events = EventAccumulator(str(settings.folder)).Reload()
    rows = list(csv.DictReader((settings.folder / "results.csv").read_text().splitlines()))
    assert [event.step for event in events.Scalars("train/loss")] == [int(r["step"]) for r in rows]
    assert len(rows) == settings.epochs


def test_the_time_left_counts_from_where_a_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((0.0, 100.0, 120.0))
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    shown = progress.Progress()
    shown.begin(80)
    shown.update(90, 100, "epoch 9/10")  # ten steps in 20 s: as many more take as long
    assert capsys.readouterr().err == "90/100 epoch 9/10 20 s left\n"


def test_a_run_that_goes_on_says_where(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(progress.Progress, "begin", lambda _, done: begun.append(done))
    train_and_stop(settings)
    train(read_settings(settings.folder), resume=True)
    assert begun == [0, 1]


def _none(content: Any) -> None:
    content["resume"]["rows"] = []


def _text(content: Any) -> None:
    content["resume"]["rows"][-1]["seconds"] = "1"


def _ids(content: Any) -> None:
    content["resume"]["image_ids"] = 0


def _wide(content: Any) -> None:
    content["variant"]["fpn_channels"] = 1 << 14


def _scale(content: Any) -> None:
    content["resume"]["scaler"] = {"scale": "x"}


@pytest.mark.parametrize("change", [_none, _text, _ids, _wide, _scale])
def test_a_state_with_odd_content_gives_way_to_the_one_before_it(
    settings: TrainSettings, change: Callable[[Any], None]
) -> None:
    """Each was a crash after the file had been read, or took memory for another network."""
    train_and_stop(replace(settings, epochs=1))
    last, previous = settings.folder / "last.pt", settings.folder / "previous.pt"
    shutil.copyfile(last, previous)
    content = torch.load(last, weights_only=True)
    change(content)
    torch.save(content, last)
    found = stopped_run(settings)
    assert found.state is not None and len(found.state["rows"]) == 1
    assert "last.pt is damaged" in found.note


@pytest.mark.parametrize("key", ["momentum_buffer", "other"])
def test_an_optimizer_s_state_that_does_not_fit_is_refused(
    settings: TrainSettings, key: str
) -> None:
    train_and_stop(settings)
    last = settings.folder / "last.pt"
    content = torch.load(last, weights_only=True)
    content["resume"]["optimizer"]["state"][0] = {key: torch.zeros(7)}
    content["resume"]["optimizer"]["param_groups"][0]["momentum"] = "x"  # the run's own is taken
    torch.save(content, last)
    with pytest.raises(BadInput, match="does not fit its run: the optimizer's"):
        train(settings, resume=True)
