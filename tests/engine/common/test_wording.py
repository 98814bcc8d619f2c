"""Numbers with their nouns."""

from __future__ import annotations

from retinart.engine.common.wording import counted


def test_one_is_singular_and_thousands_have_a_comma() -> None:
    said = [counted(number, "image") for number in (0, 1, 2, 1200)]
    assert said == ["0 images", "1 image", "2 images", "1,200 images"]
    assert [counted(number, "retry", "retries") for number in (1, 2)] == ["1 retry", "2 retries"]
