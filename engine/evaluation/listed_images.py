"""The images that a COCO file lists: one part of a folder that holds training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retinart.engine.common.progress import Progress
from retinart.engine.common.wording import counted
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.coco_json import read_document
from retinart.engine.evaluation.picture_files import PictureFiles, picture_name
from retinart.engine.media.images import list_images


def listed_images(listing: Path, sources: Sequence[str]) -> list[Path]:
    """Those images of folders, files or globs that a COCO file lists, sorted.

    Names are found as `eval` finds them, see `PictureFiles`. A line on stderr counts the listed
    images that are not there.

    Args:
        listing: a COCO file; it needs no objects.
        sources: folders, files or globs.

    Raises:
        BadInput: the file cannot be read, or none of its images is there.
    """
    if listing.is_dir():
        raise BadInput(
            f"{listing} is a folder, and a COCO file is needed to choose images by",
            fix="Give the JSON file that lists the images",
        )
    document = read_document(listing, need_objects=False)
    names = list(dict.fromkeys(map(picture_name, document.images)))
    places = [PictureFiles(p if (p := Path(s)).is_dir() else list_images(s)) for s in sources]
    found, absent = set[Path](), list[str]()
    for name in names:
        there = {path for place in places if name and (path := place.find(name)[0])}
        found |= there
        absent += [] if there else [name]
    where = ", ".join(sources)
    if not found:
        raise BadInput(
            f"none of the {counted(len(names), 'image')} that {listing} lists is in {where}",
            why=f"the first is called {names[0]!r}" if names else "it lists nothing",
            fix="Give the folder that its file names are relative to, or the list of these images",
        )
    if absent:
        Progress().line(
            f"{listing} lists {counted(len(names), 'image')}, and {len(absent)} of them are not in "
            f"{where}; the first is {absent[0]}"
        )
    return sorted(found)
