"""The options of `calibrate` and `convert` that choose images to observe activations on."""

from __future__ import annotations

from collections.abc import Callable


def add_observed(add: Callable[..., None], usual: int) -> None:
    """Add the options, by `options_of` a settings record; `usual` is the default of --num."""
    add(
        "images",
        "folder, file or glob of images to observe the activations on; may be repeated",
        otherwise="take the ranges from --record",
        action="append",
        metavar="SOURCE",
    )
    add(
        "listed_in",
        "COCO file; only those of --images that it lists are used, for one folder with the images "
        "of training, validation and test",
        otherwise="all of --images",
    )
    add("num", "how many of --images to use", otherwise=f"{usual}, or all if there are fewer")
    add("seed", "another seed chooses other images")
