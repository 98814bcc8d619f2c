"""`tests/` mirrors the tree: `engine/x/y.py` is tested by `tests/engine/x/test_y.py`."""

from __future__ import annotations

from pathlib import Path

from support import ROOT

TESTS = ROOT / "tests"
HOUSE = {"cli": ROOT / "src" / "retinart" / "cli"}  # where a folder's room is not at the same path

# Tests of a whole room, or of several rooms together, by the folder that they stand in.
SUBJECTS = {
    "": {
        "ci_venv", "errors", "golden", "layout", "makefile", "mirror", "packages", "pages",
        "recording_gpu", "site", "three_runtimes",
    },
    "cli": {
        "cheap_checks", "flat_memory", "full_disk", "gates", "help", "pages_run", "pictures",
        "quick_start", "slips", "unattended",
    },
    "engine": {"detector_on_engine"},
    "engine/cluster": {"two_nodes"},
    "engine/evaluation": {"annotation_rules", "hostile_annotations"},
    "engine/job": {"job_bad", "job_faults"},
    "engine/runtime": {"bf16", "onnxruntime_devices"},
    "engine/tensorrt": {"contract", "nms_kernel"},
    "export": {"build_choices", "dense", "input_readers"},
    "export/bundle": {"real_kserve", "real_triton"},
    "train": {"resume", "same_figures", "training_runs"},
    "train/data": {"unusable_data"},
    "verify": {"program"},
}  # fmt: skip
OWN_ROOMS = {"fuzz"}  # folders of tests that are programs of their own


def subjects() -> dict[str, set[str]]:
    """The subjects of the test files, by folder: {"engine/media": {"video", ...}}."""
    found: dict[str, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        folder = file.parent.relative_to(TESTS).as_posix().removeprefix(".")
        if folder not in OWN_ROOMS:
            found.setdefault(folder, set()).add(file.stem.removeprefix("test_"))
    return found


def room_of(folder: str) -> Path:
    return HOUSE.get(folder, ROOT / folder)


def test_every_folder_of_tests_is_a_room() -> None:
    lost = [folder for folder in subjects() if not room_of(folder).is_dir()]
    assert not lost, f"the tree has no such folders: {lost}"


def test_every_test_file_is_named_after_a_file_of_its_room() -> None:
    lost = []
    for folder, names in subjects().items():
        room = room_of(folder)
        known = {path.stem for path in room.iterdir()} | {room.name} | SUBJECTS.get(folder, set())
        lost += [f"tests/{folder}/test_{name}.py" for name in sorted(names - known)]
    assert not lost, (
        f"no file of their room has these names: {lost}. Rename them, move them to the room that "
        "they test, or list them in SUBJECTS"
    )


def test_every_subject_has_its_test() -> None:
    found = subjects()
    gone = {folder: names - found.get(folder, set()) for folder, names in SUBJECTS.items()}
    assert not any(gone.values()), f"remove from SUBJECTS: {gone}"
