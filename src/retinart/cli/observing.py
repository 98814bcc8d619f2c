"""The options of `calibrate` and `convert` that choose images to observe activations on."""

from __future__ import annotations

from collections.abc import Callable


def add_observed(add: Callable[..., None]) -> None:
    """Add the options, by `options_of` a settings record."""
    add(
        "images",
        "folder, file or glob of images to observe the activations on",
        otherwise="take the ranges from --record",
        metavar="SOURCE",
    )
    add("num", "how many of --images to use")
    add("seed", "another seed chooses other images")
