"""What is wrong with a dataset: one record a kind, with its count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from retinart.engine.common.printable import in_a_line

_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One kind of error in a dataset.

    Attributes:
        kind: what is wrong, in the plural.
        count: how often.
        effect: what happens to these entries.
        examples: the first few of them.
    """

    kind: str
    count: int
    effect: str
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        examples = in_a_line(", ".join(self.examples))
        return f"{self.count} {self.kind} ({self.effect}): {examples}{more}"


class Problems:
    """Counts problems by kind: first the `known` ones, then each kind when it first occurs."""

    def __init__(self, known: Iterable[Problem] = ()) -> None:
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {
            (p.kind, p.effect): (p.count, list(p.examples)) for p in known
        }

    def add(self, kind: str, effect: str, example: str) -> None:
        """Count one more problem of a kind."""
        count, examples = self._found.get((kind, effect), (0, []))
        if count < _EXAMPLES:
            examples.append(example)
        self._found[kind, effect] = (count + 1, examples)

    def extend(self, records: Iterable[Problem]) -> None:
        """Add what was counted elsewhere."""
        for p in records:
            self._found[p.kind, p.effect] = (p.count, list(p.examples))

    def records(self) -> tuple[Problem, ...]:
        """One record for each kind."""
        return tuple(
            Problem(kind=kind, effect=effect, count=count, examples=tuple(examples))
            for (kind, effect), (count, examples) in self._found.items()
        )
