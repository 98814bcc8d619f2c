"""Texts of the library as a command line writes them."""

from __future__ import annotations

import argparse
import re

# Fields of `Thresholds`, and the options that set them.
_THRESHOLDS = {"score_thresh": "conf", "nms_thresh": "iou", "detections_per_img": "max_det"}


def with_flags(text: str, parser: argparse.ArgumentParser) -> str:
    """A text of the library as the command line writes it.

    `field` becomes --field, and `field=False` becomes --no-field, where the command has such an
    option.
    """
    flags = {
        f"{action.dest}=False" if action.const is False else action.dest: action.option_strings[-1]
        for action in parser._actions
        if action.option_strings
    }
    flags |= {field: flags[option] for field, option in _THRESHOLDS.items() if option in flags}
    return re.sub(r"`(\w+(=False)?)`", lambda match: flags.get(match[1], match[0]), text)
