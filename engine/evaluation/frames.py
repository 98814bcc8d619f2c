"""The size of each annotated image: what the annotations say, and what the files' headers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retinart.engine.errors import BadInput
from retinart.engine.evaluation.boxes import leaves, to_corners, with_positive_sides
from retinart.engine.evaluation.problems import Problems
from retinart.engine.media.header import Header, is_turned
from retinart.engine.media.header_readers import read_header

Size = tuple[int, int]  # height and width in pixels

_TURNED = 5  # EXIF orientation from which on height and width change places
_SOME = 0.1  # share of boxes that shows a size to be wrong
_MANY = 20  # boxes that show it by where they end
_NEARLY_ALL = 0.95  # share of these that the other size has to hold


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image's file and what is known of its size.

    Attributes:
        path: it exists.
        annotated: the size in the annotations, or None.
        header: of the file, or None where it cannot be read.
        why: it cannot.
    """

    path: Path
    annotated: Size | None
    header: Header | None
    why: str = ""

    @classmethod
    def read(cls, path: Path, annotated: Size | None) -> Picture:
        """The picture, with its file's header."""
        try:
            return cls(path=path, annotated=annotated, header=read_header(path))
        except BadInput as error:
            return cls(path=path, annotated=annotated, header=None, why=error.why or error.what)

    @property
    def swapped(self) -> bool:
        """Whether the file has the annotated height and width the other way round."""
        if self.annotated is None or self.header is None:
            return False
        return is_turned(self.header.shown, self.annotated)

    @property
    def other_size(self) -> bool:
        """Whether the file has another size than annotated."""
        if self.annotated is None or self.header is None:
            return False
        return self.header.shown != self.annotated

    @property
    def turned_by_exif(self) -> bool:
        """Whether EXIF turns the stored picture by a quarter."""
        return self.header is not None and self.header.orientation >= _TURNED

    def described(self) -> str:
        """The file's name, with what its sizes are or why it cannot be read, for people."""
        if self.header is None:
            return f"{self.path.name} ({self.why})"
        if self.annotated is None or self.annotated == self.header.shown:
            return self.path.name
        shown, annotated = (f"{w}x{h}" for h, w in (self.header.shown, self.annotated))
        return f"{self.path.name} ({shown}, annotated {annotated})"


def frame_sizes(
    pictures: Sequence[Picture],
    xywh: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    problems: Problems,
) -> list[Size | None]:
    """The size that each picture's boxes are in; None for a picture that cannot be used.

    Args:
        pictures: of the file.
        xywh: (K, 4) all boxes.
        owner: (K,) the picture of each box.
        problems: is added to.
    """
    swapped = np.array([p.swapped and not p.turned_by_exif for p in pictures], np.bool_)
    other = np.array([p.other_size and not p.swapped for p in pictures], np.bool_)
    wrong_numbers = np.full(len(pictures), False)
    for group in (swapped, other):
        if _fit_the_file(pictures, xywh, owner, group):
            wrong_numbers |= group
    has_boxes = np.bincount(owner, minlength=len(pictures)) > 0
    sizes = []
    for picture, wrong, boxes in zip(pictures, wrong_numbers, has_boxes, strict=True):
        size, kind, effect = _decide(picture, wrong=bool(wrong), boxes=bool(boxes))
        if kind:
            problems.add(kind, effect, picture.described())
        sizes.append(size)
    return sizes


def _decide(picture: Picture, *, wrong: bool, boxes: bool) -> tuple[Size | None, str, str]:
    """The size that counts, or None; and what is wrong, with its effect.

    Args:
        picture: to decide on.
        wrong: whether the boxes show the annotated size to be wrong.
        boxes: whether it has any.
    """
    header, annotated = picture.header, picture.annotated
    if header is None:
        known = annotated is not None
        return annotated, "" if known else "unreadable images", "dropped"
    if annotated is None:
        if picture.turned_by_exif and boxes:
            return None, "images that EXIF turns, without height and width", "dropped"
        return header.shown, "images without height and width", "read from the files"
    if picture.swapped:
        if wrong:
            kind = "images with height and width swapped in the annotations"
            return header.shown, kind, "the file's size counts"
        return None, "images turned against their annotations, as by EXIF", "dropped"
    if picture.other_size:
        kind = "images of another size than annotated"
        if wrong:
            return header.shown, f"{kind}, whose boxes fit the file's", "the file's size counts"
        return annotated, kind, "boxes and image are scaled to each other"
    if boxes and header.orientation > 1 and (not picture.turned_by_exif or len({*annotated}) == 1):
        kind = "images that EXIF turns or mirrors within their size"
        return annotated, kind, "boxes are taken as of the image that is shown"
    return annotated, "", ""


def _fit_the_file(
    pictures: Sequence[Picture],
    xywh: npt.NDArray[np.float64],
    owner: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.bool_],
) -> bool:
    """Whether boxes leave the annotated size of the chosen pictures, and fit the file's instead."""
    mine = np.flatnonzero(chosen[owner])
    if not len(mine):
        return False
    of = [pictures[int(owner[k])] for k in mine]
    annotated = np.array([picture.annotated for picture in of], np.float64)
    shown = np.array([picture.header.shown for picture in of if picture.header], np.float64)
    boxes = with_positive_sides(xywh[mine])
    leave, fit = leaves(boxes, annotated), ~leaves(boxes, shown)
    if (shown < annotated).all() and len(boxes) >= _MANY:
        # boxes of the larger image would not all end where the smaller one does
        reach = (to_corners(boxes)[:, 2:] / shown[:, ::-1]).max(axis=0)
        return bool(fit.all() and (reach > 0.75).all())
    return bool(leave.mean() >= _SOME and fit[leave].mean() >= _NEARLY_ALL)
