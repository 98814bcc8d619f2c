"""A window that shows annotated frames, if this OpenCV can open windows."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import cv2

from retinart.engine.errors import MissingDependency
from retinart.engine.job.draw import collage
from retinart.engine.media.images import Image

_CLOSING_KEYS = (ord("q"), 27)  # 27 is Esc


class Window:
    """A window that shows the pictures of all sources side by side. Use it in the main thread.

    Raises:
        MissingDependency: this OpenCV cannot open windows, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        if not has_windows():
            raise MissingDependency(
                "a window cannot be opened",
                why="opencv-python-headless, which comes with retinart, cannot open windows",
                fix="Run `pip uninstall opencv-python-headless` and `pip install opencv-python`, "
                "which needs X11 libraries (on Debian libgl1), or leave `show` out",
            )
        screens = ("DISPLAY", "WAYLAND_DISPLAY")
        if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
            raise MissingDependency(
                "a window cannot be opened",
                why="there is no screen: neither DISPLAY nor WAYLAND_DISPLAY is set",
                fix="Run it in a desktop session, or leave `show` out",
            )

    def show(self, pictures: Sequence[Image]) -> bool:
        """Show pictures (H, W, 3) uint8 BGR. Returns False after the user has pressed q or Esc."""
        if pictures:
            cv2.imshow(self._title, collage(pictures, len(pictures)))
        return cv2.waitKey(1) & 0xFF not in _CLOSING_KEYS

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow(self._title)


def has_windows() -> bool:
    """Whether this OpenCV was built with a window system."""
    lines = (line.split(":") for line in cv2.getBuildInformation().splitlines())
    return any(line[0].strip() == "GUI" and line[1].strip() != "NONE" for line in lines)
