"""Which anchors learn which boxes."""

from __future__ import annotations

import torch

from retinart.train.data.batches import Objects
from retinart.train.loss.criterion import detection_loss
from retinart.train.loss.matcher import BACKGROUND, IGNORED, match
from retinart.train.loss.settings import LossSettings
from retinart.train.model.boxes import box_iou
from retinart.train.model.retinanet import HeadOutputs

BOX = [0.0, 0.0, 100.0, 100.0]
NONE = torch.zeros(0, dtype=torch.bool)


def _slices(*heights: float) -> torch.Tensor:
    """Anchors whose IoU with BOX is height / 100."""
    return torch.tensor([[0.0, 0.0, 100.0, h] for h in heights])


def test_the_two_thresholds_and_the_band_between() -> None:
    anchors = _slices(90, 50, 49.9, 40, 39.9, 0.1)
    matches = match(torch.tensor([BOX]), torch.tensor([False]), anchors)
    assert matches.tolist() == [0, 0, IGNORED, IGNORED, BACKGROUND, BACKGROUND]


def test_a_box_that_no_anchor_fits_takes_the_nearest_ones() -> None:
    anchors = _slices(30, 30, 20)  # a tie, and a worse one
    boxes, crowd = torch.tensor([BOX]), torch.tensor([False])
    assert match(boxes, crowd, anchors).tolist() == [0, 0, BACKGROUND]
    strict = match(boxes, crowd, anchors, allow_low_quality_matches=False)
    assert strict.tolist() == [BACKGROUND] * 3


def test_a_box_that_touches_no_anchor_takes_none() -> None:
    boxes = torch.tensor([[500.0, 500.0, 510.0, 510.0]])
    assert match(boxes, torch.tensor([False]), _slices(50, 20)).tolist() == [BACKGROUND] * 2


def test_an_anchor_learns_the_box_it_overlaps_most() -> None:
    boxes = torch.tensor([[0.0, 0.0, 100.0, 60.0], BOX])
    assert match(boxes, torch.zeros(2, dtype=torch.bool), _slices(95, 61)).tolist() == [1, 0]


def test_boxes_without_an_area_overlap_nothing() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert box_iou(torch.cat([point, torch.tensor([BOX])]), point).tolist() == [[0], [0]]


def test_an_image_without_boxes_is_all_background() -> None:
    assert match(torch.zeros(0, 4), NONE, _slices(50, 20)).tolist() == [BACKGROUND] * 2


def test_anchors_in_a_crowd_are_ignored_and_its_box_is_never_learned() -> None:
    boxes = torch.tensor([BOX, [0.0, 0.0, 100.0, 20.0]])
    crowd = torch.tensor([True, False])
    inside, half_out, outside = (
        [10.0, 50.0, 20.0, 60.0],
        [0.0, 49.0, 99.0, 152.0],
        [90, 90, 190, 190],
    )
    anchors = torch.tensor([BOX, inside, half_out, outside, [0.0, 0.0, 100.0, 21.0]])
    matches = match(boxes, crowd, anchors).tolist()
    assert matches == [IGNORED, IGNORED, BACKGROUND, BACKGROUND, 1]


def _loss(objects: Objects, logits: torch.Tensor, deltas: torch.Tensor) -> list[float]:
    anchors = torch.tensor([BOX, [0.0, 0.0, 100.0, 45.0], [300.0, 300.0, 400.0, 400.0]])
    outputs = HeadOutputs(logits=[logits.view(1, 6, 1, 1)], deltas=[deltas.view(1, 12, 1, 1)])
    losses = detection_loss(outputs, [objects], anchors, num_classes=2, settings=LossSettings())
    return [losses.cls.item(), losses.box.item(), losses.num_positives]


def test_ignored_anchors_have_no_class_loss_and_only_positives_a_box_loss() -> None:
    objects = Objects(torch.tensor([BOX]), torch.tensor([1]), torch.tensor([False]))
    logits, deltas = torch.zeros(3, 2), torch.zeros(3, 4)
    base = _loss(objects, logits, deltas)
    # one positive and three negatives of two anchors at p = 0.5: log 2 / 4, weighted
    torch.testing.assert_close(base[0], 0.6931472 / 4 * (0.25 + 3 * 0.75))
    assert base[1:] == [0.0, 1]
    logits[1], deltas[1], deltas[2] = 9.0, 5.0, 5.0  # the band, and the background's box
    assert _loss(objects, logits, deltas) == base
    logits[2] = 9.0
    assert _loss(objects, logits, deltas)[0] > base[0] + 5
    deltas[0] = 1.0
    torch.testing.assert_close(_loss(objects, logits, deltas)[1], 4 * (1 - 0.5 / 9))


def test_an_image_without_objects_has_a_finite_class_loss_alone() -> None:
    objects = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), NONE)
    cls, box, positives = _loss(objects, torch.zeros(3, 2), torch.zeros(3, 4))
    torch.testing.assert_close(cls, 6 * 0.75 * 0.6931472 / 4)
    assert (box, positives) == (0.0, 0)
