"""Rules that say which detections are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from retinart.engine.errors import BadInput
from retinart.engine.keep.areas import Areas


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which detections of a model are kept, on every runtime alike.

    Attributes:
        classes: names of the classes to keep; empty keeps all.
        conf: by class name, the score that a detection of this class must exceed.
        min_size: width and height in pixels of the image that a box must have at least.
        areas: its regions say where in the image detections are kept; None keeps them everywhere.
        agnostic: of two boxes that overlap, keep the better one, even if their classes differ.

    Raises:
        BadInput: a number that makes no sense.
    """

    classes: tuple[str, ...] = ()
    conf: Mapping[str, float] = field(default_factory=dict)
    min_size: float = 0.0
    areas: Areas | None = None
    agnostic: bool = False

    def __post_init__(self) -> None:
        for name, value in self.conf.items():
            if not 0 <= value <= 1:
                raise BadInput(f"`conf` of {name} is {value}", fix="Give a value from 0 to 1")
        if not 0 <= self.min_size < math.inf:
            raise BadInput(f"`min_size` is {self.min_size}", fix="Give a number of pixels from 0")

    @property
    def all(self) -> bool:
        """Whether no rule is given."""
        return not (self.classes or self.conf or self.min_size or self.regions or self.agnostic)

    @property
    def regions(self) -> bool:
        """Whether there are regions."""
        return self.areas is not None and bool(self.areas.regions)


def parse_conf(text: str) -> tuple[float | None, dict[str, float]]:
    """`0.4` is a score for all classes, `car=0.6,0.4` has another one for cars.

    Returns:
        The score of all other classes, or None; and the scores by class name.

    Raises:
        BadInput: it is neither.
    """
    base, by_class = list[float](), dict[str, float]()
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        name = name.strip()
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if math.isnan(value) or (equals and not name) or name in by_class or (base and not name):
            raise BadInput(
                f"{text!r} is not a score",
                fix="Give one such as 0.4, or scores of classes and one of the others, such as "
                "car=0.6,0.4",
            )
        if name:
            by_class[name] = value
        else:
            base.append(value)
    return (base[0] if base else None), by_class


def class_indices(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The indices of classes by name, without regard to case; equal names count as one class.

    Raises:
        BadInput: the model has no class of a name.
    """
    found: list[int] = []
    for name in names:
        same = [i for i, known in enumerate(classes) if _key(known) == _key(name)]
        if not same:
            raise BadInput(
                f"the model has no class {name!r}",
                why=f"its classes are {_some(name, classes)}",
                fix="Check the name; `retinart inspect` lists all",
            )
        found += same
    return found


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _some(wanted: str, names: Sequence[str]) -> str:
    """The first names, those that look like the wanted one before the others."""
    import difflib

    alike = difflib.get_close_matches(wanted, names, n=3)
    order = [*alike, *(name for name in names if name not in alike)]
    return ", ".join(order[:8]) + (f" and {len(order) - 8} more" if len(order) > 8 else "")
