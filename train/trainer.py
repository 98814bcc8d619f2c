"""The training loop: one step after another, a checkpoint after every epoch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retinart.engine.common.folders import own_folder
from retinart.engine.common.progress import Progress
from retinart.engine.errors import BadInput, CheckFailed
from retinart.engine.evaluation.annotation_files import annotations_sha256
from retinart.engine.evaluation.coco import CocoDataset, load_coco
from retinart.engine.evaluation.evaluate import check_evaluation, points
from retinart.engine.model.resize_rule import ResizeRule
from retinart.engine.model.variant import Variant
from retinart.train.data.batches import Batch, Batches, prefetch
from retinart.train.data.check import load_checked
from retinart.train.data.rule import training_rule
from retinart.train.initial import empty_start, start
from retinart.train.learner import Diverged, Learner
from retinart.train.memory import kept_memory
from retinart.train.model.checkpoint import save_checkpoint
from retinart.train.ranks import Ranks, is_first_process, open_ranks, process_count
from retinart.train.run_folder import Row, RunFolder
from retinart.train.schedule import learning_rate
from retinart.train.settings import TrainSettings
from retinart.train.stopped_run import Stopped, keep_previous, set_damaged_aside, stopped_run
from retinart.train.validate import TorchDetector, Validation


def train(settings: TrainSettings, *, command: str = "", resume: bool = False) -> Path:
    """Train a model. Progress and the data's problems go to stderr.

    The files go into `runs/name`, each under a temporary name that is then renamed. `last.pt` is
    written after every epoch, with the state that a stopped run needs, and `best.pt` when AP is the
    best so far. Besides there are `results.csv`, `curves.png`, `predictions.jpg`, TensorBoard's
    events, `config.json` and `environment.json`. Processes started by `torchrun` share each step.

    Args:
        command: the command line, to keep in the checkpoint.
        resume: go on with the run in this folder, from its last whole epoch.

    Returns:
        The path of `last.pt`.

    Raises:
        BadInput: the data or the settings cannot be used, a run of this name exists, or another
            process trains in its folder.
        CheckFailed: the loss became NaN or infinite.
    """
    _check_start(settings, process_count())
    if not resume:
        settings.check_new()
    with own_folder(settings.folder) if is_first_process() else nullcontext():
        return _train(settings, command, resume)


def _train(settings: TrainSettings, command: str, resume: bool) -> Path:
    stopped = stopped_run(settings) if resume else Stopped(state=None)
    state = stopped.state
    dataset = load_checked(
        settings.annotations,
        settings.images,
        workers=settings.workers,
        open_images=settings.check_images,
    )
    digest = annotations_sha256(settings.annotations, settings.images)
    if state is not None:
        _check_same_data(state, settings, dataset, digest)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    # by now every process has looked at the files
    with open_ranks(settings.device) as ranks, kept_memory():
        if stopped.note and ranks.first:
            Progress().line(stopped.note)
            set_damaged_aside(settings)
        return _Run(settings, dataset, digest, ranks, command, state).go(state)


class _Run:
    """One process of a run: the state that `go` and its steps share."""

    def __init__(
        self,
        settings: TrainSettings,
        dataset: CocoDataset,
        digest: str,
        ranks: Ranks,
        command: str,
        state: Mapping[str, Any] | None,
    ) -> None:
        self.settings, self.dataset, self.digest = settings, dataset, digest
        self.ranks, self.command = ranks, command
        self.progress = Progress()
        begun = empty_start(state["variant"]) if state else start(settings, dataset.classes)
        self.variant: Variant = begun.variant
        self.rule = training_rule(self.variant, settings.size)
        self.validation, seen = _validation(settings, self.rule, dataset.classes)
        self.batches = Batches(
            dataset,
            rule=self.rule,
            batch_size=settings.batch_size,
            seed=settings.seed,
            augmentation=settings.augmentation,
            multiscale=settings.multiscale,
            aspect_batches=settings.aspect_batches,
            share=ranks.share,
        )
        _check_parts(settings, self.variant, len(dataset.images), ranks)
        self.say([*dataset.summary(), self.batches.note, *seen, *begun.notes])
        self.learner = Learner(begun, settings, ranks)
        self.rows: list[Row] = []
        self.best = -1.0

    def go(self, state: Mapping[str, Any] | None) -> Path:
        """All epochs from the start, or from a stopped run's state; returns `last.pt`."""
        first_epoch, seconds = 0, 0.0
        if state is not None:
            try:
                self.learner.restore(state)
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                raise BadInput(
                    f"the state in {self.settings.last} does not fit its run",
                    why=str(error).partition("\n")[0],
                    fix="Start a new run from its weights: give them as `weights`",
                ) from error
            self.rows = [dict(row) for row in state["rows"]]
            self.best = state["best"]
            first_epoch, seconds = len(self.rows), float(self.rows[-1]["seconds"] or 0.0)
        per_epoch, epochs = self.batches.steps_per_epoch, self.settings.epochs
        folder = RunFolder(self.settings.folder) if self.ranks.first else None
        if folder is not None and state is None:
            folder.describe(self.settings, self.ranks.device)
        if folder is not None:
            self.say([folder.open_board(first_epoch * per_epoch)])
        if folder is not None and state is not None:
            folder.record(self.rows)  # a killed run may have had no time for its last row
        started = time.perf_counter() - seconds
        steps = range(first_epoch * per_epoch, epochs * per_epoch)
        self.progress.begin(steps.start)
        try:
            with closing(prefetch(self.batches, steps, workers=self.settings.workers)) as source:
                for epoch in range(first_epoch + 1, epochs + 1):
                    row = self._epoch(epoch, source)
                    row["seconds"] = time.perf_counter() - started
                    if folder is not None:
                        self._after_epoch(epoch, row, folder)
                    self.ranks.wait()
            if folder is not None:
                self._finish(folder)
            self.ranks.wait()
        finally:
            if folder is not None:
                folder.close()
        return self.settings.last

    def _epoch(self, epoch: int, source: Any) -> Row:
        """The steps of one epoch, counted from 1."""
        settings, per_epoch = self.settings, self.batches.steps_per_epoch
        steps = settings.epochs * per_epoch
        sums, data, images = np.zeros(2), 0.0, 0
        began = time.perf_counter()
        for done in range(1, per_epoch + 1):
            step = (epoch - 1) * per_epoch + done
            waited = time.perf_counter()
            batch: Batch = next(source)
            data += time.perf_counter() - waited
            lr = learning_rate(
                step - 1,
                steps,
                peak=settings.lr,
                warmup_steps=settings.warmup_steps,
                schedule=settings.schedule,
                milestones=settings.milestones,
            )
            try:
                sums += self.learner.step(batch, lr)
            except Diverged as error:
                raise self._diverged(str(error), step, batch, lr) from error
            images += len(batch.paths) * self.ranks.count
            spent = time.perf_counter() - began
            if self.ranks.first:
                self.progress.update(
                    step,
                    steps,
                    f"epoch {epoch}/{settings.epochs} loss {sums.sum() / done:.3f} "
                    f"lr {lr:.2g} {images / spent:.1f} images/s, {data / spent:.1%} of the time "
                    "waiting for images",
                )
        cls, box = (sums / per_epoch).tolist()
        return {
            "epoch": epoch,
            "step": epoch * per_epoch,
            "loss": cls + box,
            "cls_loss": cls,
            "box_loss": box,
            "lr": lr,
            "images_per_s": images / spent,
            "data_share": data / spent,
            "seconds": None,
            "AP": None,
            "AP50": None,
        }

    def _after_epoch(self, epoch: int, row: Row, folder: RunFolder) -> None:
        """Measure AP, write the files and print a line; only the first process does this."""
        settings, last = self.settings, epoch == self.settings.epochs
        ap = ""
        if self.validation and (last or epoch % settings.eval_every == 0):
            found = self.validation.run(self.learner.measured, self.variant)
            row["AP"], row["AP50"] = found.ap, found.figures["AP50"]
            ap = f", AP {points(row['AP'])}, AP50 {points(row['AP50'])}"
        self.rows.append(row)
        if row["AP"] is not None and row["AP"] > self.best:
            self.best = row["AP"]
            self._save(folder.path / "best.pt")
        keep_previous(settings)
        self._save(settings.last, resume=self._state())
        folder.record(self.rows)  # after the checkpoint: it tells of no epoch that was not kept
        self.progress.line(
            f"epoch {epoch}/{settings.epochs}: loss {row['loss']:.4f} (class "
            f"{row['cls_loss']:.4f}, box {row['box_loss']:.4f}){ap}, "
            f"{row['images_per_s']:.1f} images/s, {row['data_share']:.1%} of the time waiting for "
            f"images, {row['seconds']:.0f} s"
        )

    def _finish(self, folder: RunFolder) -> None:
        """Draw the pictures, then write `last.pt` without the state that a stopped run needs."""
        shown = self.dataset
        if self.validation:
            shown = load_coco(self.validation.annotations, self.validation.images)
        detector = TorchDetector(
            self.learner.measured, self.variant, self.dataset.classes, self.rule
        )
        folder.draw_samples(detector, shown)
        self.say([folder.draw_curves(self.rows)])
        self._save(self.settings.last)
        self.settings.previous.unlink(missing_ok=True)
        said = "no best.pt: no images to measure AP on were given"
        if self.best >= 0:
            epoch = next(row["epoch"] for row in self.rows if row["AP"] == self.best)
            said = f"best.pt has AP {points(self.best)}, of epoch {epoch} of {self.settings.epochs}"
        weights = shlex.quote(str(self.settings.weights_to_export))
        self.say([said, f"next: retinart export {weights} -o model.onnx"])

    def _save(self, path: Path, resume: Mapping[str, Any] | None = None) -> None:
        save_checkpoint(
            path,
            model=self.learner.average.model,
            variant=self.variant,
            classes=self.dataset.classes,
            training=self._record(),
            resume=resume,
        )

    def _record(self) -> dict[str, Any]:
        """How the weights came about, in plain JSON types and without this machine's paths."""
        plain = self.settings.to_json()
        for key in ("annotations", "images", "val_annotations", "val_images", "runs", "name"):
            del plain[key]
        return {
            "command": self.command,
            "settings": plain,
            "annotations_sha256": self.digest,
            "torch": str(torch.__version__),
            "processes": self.ranks.count,
            "last_epoch": dict(self.rows[-1]) if self.rows else {},
        }

    def _state(self) -> dict[str, Any]:
        """The state that a stopped run needs besides the averaged weights."""
        return {
            "annotations_sha256": self.digest,
            "image_ids": [image.image_id for image in self.dataset.images],
            "rows": [dict(row) for row in self.rows],
            "best": self.best,
            **self.learner.state(),
        }

    def _diverged(self, what: str, step: int, batch: Batch, lr: float) -> CheckFailed:
        """Save the state at the failure, and name the images of the batch."""
        paths = [p.name for part in self.ranks.gather(batch.paths) for p in part]
        folder = self.settings.folder
        if self.ranks.first:
            self._save(
                folder / "diverged.pt",
                resume={**self._state(), "step": step, "files": paths, "lr": lr},
            )
        names = ", ".join(paths[:8]) + ("..." if paths[8:] else "")
        kept = folder / "last.pt"
        return CheckFailed(
            f"the {what} is NaN or infinite at step {step}, learning rate {lr:.2g}",
            why=f"training diverged; this batch held {names}",
            fix="Lower the learning rate or lengthen the warm-up. The state at the failure is in "
            f"{folder / 'diverged.pt'}; "
            + (f"{kept} is of the last whole epoch" if kept.exists() else "no epoch was finished"),
        )

    def say(self, lines: Sequence[str | None]) -> None:
        """Print lines on stderr, in the first process."""
        for line in lines:
            if line and self.ranks.first:
                self.progress.line(line)


def _check_parts(settings: TrainSettings, variant: Variant, images: int, ranks: Ranks) -> None:
    """Refuse batches that the images do not fill, or that a batch norm cannot learn from."""
    parts = settings.accumulate * ranks.count
    if images < settings.batch_size and parts > 1:
        raise BadInput(
            f"{images} images do not fill a batch of {settings.batch_size}, "
            f"which {parts} parts share",
            fix=f"Set `batch_size` to at most {images}, or train in one process and set "
            "`accumulate` to 1",
        )
    each = min(settings.batch_size, images) // parts
    small = all(round(side * settings.multiscale[0] / 32) <= 1 for side in settings.size)
    alone = ranks.count == 1 or ranks.device.type != "cuda"  # no synchronised batch norms
    learns = settings.norm == "batch" and not variant.backbone_norm_groups
    if each == 1 and small and alone and learns:
        raise BadInput(
            "one image of 32x32 pixels gives batch norms nothing to learn from",
            why="the last stage is a single pixel, whose variance is 0",
            fix="Give a larger `height`, a larger `batch_size`, or set `norm` to group",
        )


def _check_same_data(
    state: Mapping[str, Any], settings: TrainSettings, dataset: CocoDataset, digest: str
) -> None:
    """Refuse to go on with other data than the run began with: the order would differ."""
    what = f"cannot go on with {settings.folder}"
    if state["annotations_sha256"] != digest:
        raise BadInput(
            what,
            why=f"{settings.annotations} is not the file that the run began with",
            fix="Bring it back, or start a new run",
        )
    then = state.get("image_ids")  # none in older checkpoints
    now = [image.image_id for image in dataset.images]
    if then is not None and then != now:
        gone, new = len(set(then) - set(now)), len(set(now) - set(then))
        why = f"since it began, {gone} of its {len(then)} images went away and {new} came"
        raise BadInput(
            what,
            why="; ".join([why, *(str(problem) for problem in dataset.problems)]),
            fix="Bring the images back as they were, or start a new run from the `weights`",
        )


def _validation(
    settings: TrainSettings, rule: ResizeRule, classes: tuple[str, ...]
) -> tuple[Validation | None, list[str]]:
    """The images to measure AP on, and lines about them. Bad ones stop the training now."""
    if settings.val_annotations is None or settings.val_images is None:
        return None, []
    _, lines = check_evaluation(classes, settings.val_annotations, settings.val_images)
    validation = Validation(
        annotations=settings.val_annotations, images=settings.val_images, rule=rule, classes=classes
    )
    return validation, [f"validation: {line}" for line in lines]


def _check_start(settings: TrainSettings, processes: int) -> None:
    """Refuse what these processes and this machine cannot train, before anything is read."""
    if settings.batch_size % (settings.accumulate * processes):
        raise BadInput(
            f"a batch of {settings.batch_size} images does not divide into "
            f"{settings.accumulate} parts in {processes} process{'es' * (processes > 1)}",
            fix=f"Give a multiple of {settings.accumulate * processes}",
        )
    try:
        torch.zeros(1, device=settings.device).item()
    except Exception as error:  # of many kinds, by device
        raise BadInput(
            f"cannot train on the device {settings.device!r}",
            why=str(error).partition("\n")[0],
            fix="Give cpu, or a device that this PyTorch and this machine have, such as cuda:0",
        ) from error
