"""What a job says of itself, for people."""

from __future__ import annotations

from collections import Counter

import pytest

from retinart.engine.job.summary import DetectSummary


@pytest.mark.parametrize(
    ("classes", "end"),
    [
        (5, "5 a, 4 b, 3 c, 2 d, 1 e"),
        (6, "6 a, 5 b, 4 c, 3 d, 2 e, 1 f"),  # "1 of other classes" was f
        (7, "7 a, 6 b, 5 c, 4 d, 3 e, 3 of other classes"),
    ],
)
def test_the_rest_is_of_several_classes(classes: int, end: str) -> None:
    found = Counter({"abcdefg"[i]: classes - i for i in range(classes)})
    said = DetectSummary(frames=1, detections=found.total(), confident=found).outcome()
    assert said.endswith(f": {end}")


def test_the_table_explains_its_words() -> None:
    """Seen: 357% busy."""
    assert "busy: the stage's work as a share of the time" in DetectSummary().table()
