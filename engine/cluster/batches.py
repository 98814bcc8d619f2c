"""A detector for the batches of Ray Data: a row a picture in, and a row a picture out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from retinart.engine.cluster.pictures import Read, detect_pictures, file_reader
from retinart.engine.common.packages import import_package
from retinart.engine.detector import Detector
from retinart.engine.errors import BadInput
from retinart.engine.evaluation.picture_result import PictureResult
from retinart.engine.media.images import decode_image


class DetectBatch:
    """Detects on the batches of a `ray.data.Dataset`; each actor holds one detector.

        pictures = ray.data.read_binary_files("images", include_paths=True)
        found = pictures.map_batches(
            DetectBatch,
            fn_constructor_args=["model.onnx"],
            compute=ray.data.ActorPoolStrategy(size=4),
            num_cpus=2,
            batch_size=32,
        )
        found.write_parquet("found")

    The rows that come in have a column `path`, or `bytes` with the content of an image file, or
    both; then `bytes` is read. A row comes out for each of them, in the same order:

    | Column | Type | |
    |---|---|---|
    | `path` | string | as it came in; null without one |
    | `width`, `height` | int32 | in pixels; 0 if the picture cannot be read |
    | `boxes` | lists of 4 float32 | corners x1, y1, x2, y2 in pixels of the picture, best first |
    | `scores` | list of float32 | 0 to 1 |
    | `labels` | list of strings | names of classes |
    | `error` | string | why the picture cannot be read; null if it can |

    Args:
        model: the file that `retinart export` or `retinart build` wrote; on each node, under this
            path.
        threads: inference threads; None takes the CPUs that Ray gives the actor.
        settings: further arguments of `Detector`.

    Raises:
        BadInput, MissingDependency, CheckFailed: see `Detector`.
    """

    def __init__(self, model: str | Path, *, threads: int | None = None, **settings: Any) -> None:
        self._arrow = import_package(
            "pyarrow", package="ray[data]", extra="ray", purpose="DetectBatch", fix="Install again"
        )
        threads = threads or actor_cpus()
        self._detector = Detector(model, **{"throughput": True, "threads": threads, **settings})

    def __call__(self, batch: Any) -> Any:
        """A batch of rows as a `pyarrow.Table`.

        Args:
            batch: columns by name, as NumPy's arrays or as a `pyarrow.Table`.

        Raises:
            BadInput: it has neither a column `path` nor `bytes`.
        """
        columns = batch.to_pydict() if hasattr(batch, "to_pydict") else batch
        reads = list(_reads(columns))
        paths = columns.get("path", [None] * len(reads))
        found = list(detect_pictures(self._detector.runner, reads))
        return self._table([None if path is None else str(path) for path in paths], found)

    def _table(self, paths: list[str | None], found: list[PictureResult]) -> Any:
        arrow, classes = self._arrow, self._detector.classes
        floats = arrow.list_(arrow.float32())
        columns: dict[str, tuple[Any, list[Any]]] = {
            "path": (arrow.string(), paths),
            "width": (arrow.int32(), [one.width for one in found]),
            "height": (arrow.int32(), [one.height for one in found]),
            "boxes": (arrow.list_(floats), [one.detections.xyxy.tolist() for one in found]),
            "scores": (floats, [one.detections.confidence.tolist() for one in found]),
            "labels": (
                arrow.list_(arrow.string()),
                [[classes[i] for i in one.detections.class_id] for one in found],
            ),
            "error": (arrow.string(), [one.why or None for one in found]),
        }
        return arrow.table({name: arrow.array(v, kind) for name, (kind, v) in columns.items()})


def actor_cpus() -> int | None:
    """The CPUs that Ray gives the actor that runs this; None outside of one, or for a part of one.

    A part of a CPU leaves the number of threads to the affinity mask and the control groups.
    """
    ray = import_package("ray", package="ray", extra="ray", purpose="Ray", fix="Install it again")
    context = ray.get_runtime_context()
    given = context.get_assigned_resources().get("CPU", 0) if ray.is_initialized() else 0
    return int(given) or None


def _reads(columns: Mapping[str, Any]) -> list[Read]:
    """How the picture of each row is read.

    Raises:
        BadInput: there is neither a column `path` nor `bytes`.
    """
    paths, data = columns.get("path"), columns.get("bytes")
    if data is not None:
        names = [str(path) for path in paths] if paths is not None else ["in memory"] * len(data)
        pairs = zip(data, names, strict=True)
        return [partial(_decode, bytes(content), name) for content, name in pairs]
    if paths is not None:
        return [file_reader(Path(str(path))) for path in paths]
    raise BadInput(
        "the rows hold no pictures",
        why=f"their columns are {', '.join(columns) or 'none'}",
        fix="Give a column `path`, or `bytes` with the content of image files",
    )


def _decode(data: bytes, name: str, note: Any) -> Any:
    return decode_image(data, name=name, note=note)
