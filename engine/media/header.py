"""What a picture's file says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture's file says of itself.

    Attributes:
        format: such as "JPEG".
        stored: (height, width) in pixels, as the file stores the picture.
        orientation: how the stored picture is turned and mirrored to be shown, 1 to 8 as EXIF
            counts; 1 shows it as it is stored.
        white: the largest value that a pixel can have; 0 where a pixel has 16 bits, and nothing
            says how many of them are used.
        several: whether the file holds more frames or pages than one.
        alpha: whether it has an alpha channel.
        cmyk: whether its colours are CMYK.
        inverted: whether 0 is white, in a TIFF file.
        by_pillow: whether Pillow decodes it, because OpenCV does not, or gets it wrong.
    """

    format: str
    stored: tuple[int, int]
    orientation: int = 1
    white: int = 255
    several: bool = False
    alpha: bool = False
    cmyk: bool = False
    inverted: bool = False
    by_pillow: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) in pixels, as viewers show the picture and `read_image` returns it."""
        return self.stored if self.orientation < 5 else self.stored[::-1]


def is_turned(shown: tuple[int, int], annotated: tuple[int, int]) -> bool:
    """Whether an image's size as it is shown is the annotated one the other way round.

    Then nothing says where its boxes are: a program for annotation may or may not turn a picture as
    its EXIF entry asks, and does not write down which.
    """
    return shown[0] != shown[1] and shown == annotated[::-1]
