"""Where annotated copies go, decided before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from retinart.engine.errors import BadInput
from retinart.engine.media.source import Source

USUAL_RATE = 25.0  # frames a second, of a source that names none


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Where a source's annotated frames go.

    Attributes:
        path: the video; None where each image goes to its own path in `pictures`.
        fps: nominal frame rate of the video, whose frames keep their own times.
        size: (height, width) of the video; None takes the first frame's.
        sound: the video file whose sound is kept, or None.
        pictures: by source image its copy.
    """

    path: Path | None = None
    fps: float = USUAL_RATE
    size: tuple[int, int] | None = None
    sound: Path | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)


def plan_copies(sources: Sequence[Source], out: Path, *, audio: bool = False) -> list[Copy]:
    """A copy for each source: each image its own file, a video or live source one video.

    Args:
        sources: what is copied.
        out: the folder for all of it.
        audio: keep the sound of the one source.

    Raises:
        BadInput: `audio` is asked for, and the source cannot have a sound that could be kept.
    """
    copies = []
    for source, stem in zip(sources, stems_of(sources), strict=True):
        if source.stills:
            copies.append(Copy(pictures=copies_of_images(out, source.files)))
            continue
        copies.append(
            Copy(
                path=out / f"{stem}.mp4",
                fps=source.rate or USUAL_RATE,
                size=source.size,
                sound=source.files[0] if audio and source.files and source.has_sound else None,
            )
        )
    if audio:
        _check_sound(sources)
    return copies


def stems_of(sources: Sequence[Source]) -> list[str]:
    """What the files of each source are called; "" for images, whose copies keep their names."""
    # of several videos, one of these names gets a number; a single one is refused for it later
    taken = {"detections", "summary"} if len(sources) > 1 else set[str]()
    stems = []
    for source in sources:
        name = source.name.split("://")[-1]
        stem = source.files[0].stem if source.files else re.sub(r"\W+", "_", name)
        stems.append("" if source.stills else _unused(stem, taken))
        taken.add(stems[-1])
    return stems


def _check_sound(sources: Sequence[Source]) -> None:
    """Check that sound can be kept. A video file without sound passes."""
    fix = "Leave out `audio`, or give one video file"
    if len(sources) > 1:
        raise BadInput("sound is kept of one source only", why=f"{len(sources)} are given", fix=fix)
    (source,) = sources
    if source.stills or source.live or not source.files:
        kind = "holds images" if source.stills else "is not a file"
        raise BadInput(f"the sound of {source.name} cannot be kept", why=f"it {kind}", fix=fix)


def _unused(stem: str, taken: set[str]) -> str:
    """The first of `name`, `name-2`, `name-3` and so on that is not taken."""
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name not in taken)


def check_outputs(sources: Sequence[Path], outputs: Sequence[Path]) -> None:
    """See that no output is a source or another output.

    Raises:
        BadInput: one is.
    """
    kept = {path.resolve(): path for path in sources}
    seen: set[Path] = set()
    for output in outputs:
        resolved = output.resolve()
        if resolved in kept:
            raise BadInput(
                f"the output {output} would overwrite its source {kept[resolved]}",
                fix="Choose another `out`, or another name",
            )
        if resolved in seen:
            raise BadInput(
                f"two outputs would be written to {output}",
                fix="Give `coco`, `csv` and `out` places of their own",
            )
        seen.add(resolved)


def copies_of_images(out: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Where each image's annotated copy goes.

    Images of several folders keep their folders, so that equal names do not meet.
    """
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    names = [path.relative_to(root) for path in absolute]
    return {str(p): out / name for p, name in zip(paths, names, strict=True)}
