"""The pages: links lead to files that a clone has, and names that the pages use exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retinart.cli import build_parser
from support import ROOT

# made by the commands; used where git is missing
NOT_SHIPPED = frozenset({".git", ".venv", "build", "dist", "runs"})


def readme() -> str:
    file = ROOT / "README.md"
    if not file.is_file():
        pytest.skip("there is no README.md")
    return file.read_text("utf-8")


def shipped_files() -> set[Path]:
    """The files of a clone: all that git tracks or would add. Without git, all files here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = {ROOT / name for name in listed.stdout.split("\0") if name}
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = {p for p in ROOT.rglob("*") if p.relative_to(ROOT).parts[0] not in NOT_SHIPPED}
    return {path for path in found if path.is_file()}


def links_in(text: str) -> list[str]:
    """Targets of relative links in Markdown, without links in code."""
    text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z][a-z+.-]*:|#", target)]


def test_relative_links_lead_to_what_is_shipped() -> None:
    """A clone lacks files that .gitignore names, so looking at the disk is not enough."""
    files = shipped_files()
    there = files | {folder for file in files for folder in file.parents}
    pages = sorted(file for file in files if file.suffix == ".md")
    assert ROOT / "CONTRIBUTING.md" in pages
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in links_in(page.read_text("utf-8"))
        if Path(os.path.normpath(page.parent / target.split("#", 1)[0])) not in there
    ]
    assert not missing, "links to files that a clone lacks:\n" + "\n".join(missing)


def test_files_that_the_pages_name_exist() -> None:
    ours = re.compile(
        r"`((?:engine|train|export|calib|benchmarks|verify|src|tests)/[\w./-]+\.(?:py|cu))`"
    )
    files = shipped_files()
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in sorted(file for file in files if file.suffix == ".md")
        for name in ours.findall(page.read_text("utf-8"))
        if ROOT / name not in files
    ]
    assert not missing, "files that do not exist:\n" + "\n".join(missing)


def test_links_are_found_outside_of_code_only() -> None:
    text = (
        "[a](a.md) and ![b](<b.png>) `[c](c.md)` [d](https://d) [e](#e) [`f`](f.md#g)\n"
        '    [h](h.md)\n```\n[i](i.md)\n```\n<img src="j.png">\n'
    )
    assert links_in(text) == ["a.md", "b.png", "f.md#g", "j.png"]


def test_the_readme_names_the_pytorch_of_the_constraints() -> None:
    """`make` would replace another version by the large CUDA build."""
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    named = re.findall(r"\btorch==\S+", readme())
    assert named and set(named) <= set(pins), f"README.md: {named}, constraints.txt has another"


def test_the_readme_is_short() -> None:
    assert len(readme().splitlines()) <= 120


def test_the_readmes_table_is_the_grids() -> None:
    grid = json.loads((ROOT / "benchmarks/results/paper_grid.json").read_text("utf-8"))
    rows = []
    for timing in grid["timings"]:
        if timing["checkpoint"] == "resnet50" and timing["imgsz"] in (400, 600, 800):
            (peer,) = timing["benchmark"]["peers"]
            ours = timing["benchmark"]["models"][:3]  # FP32, bf16, INT8
            cells = [f"{timing['imgsz']}", f"{peer['ms']['total']['p50']:.0f}"]
            for model in ours:
                ratio = model["times_as_fast_as"]["torchvision eager"]["value"]
                cells.append(f"{model['ms']['total']['p50']:.0f} ({ratio:.2f}x)")
            cells.append(", ".join(f"{m['peak_mib']:.0f}" for m in (peer, *ours)))
            rows.append(f"| {' | '.join(cells)} |")
    assert len(rows) == 3 and "\n".join(rows) in readme()


@pytest.mark.parametrize("folder", ["engine", "benchmarks", "train"])
def test_contributing_lists_every_room(folder: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = text.split(f"| `{folder}/` | |\n", 1)[1].split("\n\n", 1)[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    rooms = [file.parent.name for file in (ROOT / folder).glob("*/__init__.py")]
    assert sorted(listed) == sorted(rooms)


def commands_in(text: str) -> set[str]:
    """Subcommands of `retinart` in fenced blocks and code spans."""
    fence = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    code = fence.findall(text) + re.findall(r"`[^`\n]+`", fence.sub("", text))
    pattern = re.compile(r"(?:^|[`\s/])retinart ([a-z][a-z-]*)(?![\w=.])", re.MULTILINE)
    return {
        match
        for piece in code
        for line in piece.splitlines()
        if not re.match(r"[\s`>]*(?:from|import) ", line)
        for match in pattern.findall(line)
    }


def test_commands_that_the_readme_names_exist(
    retinart: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    unknown = {}
    for command in sorted(commands_in(readme())):
        done = retinart(command, "--help")
        if done.returncode:
            unknown[command] = done.stderr.strip()[-200:]
    assert not unknown, f"README.md names commands that do not exist: {unknown}"


def command_lines(text: str) -> list[list[str]]:
    """The words behind `retinart` of each command in an indented block, without "..."."""
    whole = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^ {4,}(?:\S+ )*?(?:\S*/)?retinart ([a-z][^>\n]*)", whole, re.MULTILINE)
    split = (shlex.split(line, comments=True) for line in lines)
    return [[word for word in words if word != "..."] for words in split]


def test_commands_of_all_pages_can_be_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser()
    pages = sorted(file for file in shipped_files() if file.suffix == ".md")
    commands = [(page, words) for page in pages for words in command_lines(page.read_text("utf-8"))]
    assert len(commands) > 40
    wrong = []
    for page, words in commands:
        try:
            parser.parse_args(words)
        except SystemExit as ended:
            if ended.code:
                error = capsys.readouterr().err.splitlines()[-1]
                wrong.append(f"{page.relative_to(ROOT)}: {' '.join(words)}\n    {error}")
    assert not wrong, "\n".join(wrong)


def test_command_lines_are_joined_and_stripped() -> None:
    text = (
        "retinart sings.\n\n    retinart eval a.onnx \\\n        --images 'b c'  # slow\n"
        "    torchrun --nproc-per-node 4 -m retinart train ... --batch 16\n"
        "    .venv/bin/retinart doctor\n    pip install retinart\n"
    )
    assert command_lines(text) == [
        ["eval", "a.onnx", "--images", "b c"],
        ["train", "--batch", "16"],
        ["doctor"],
    ]


def test_commands_are_found_in_code_only() -> None:
    text = (
        "Then retinart sings.\n`retinart detect a.onnx`\n```sh\nmake demo\n"
        ".venv/bin/retinart export x\npython -m retinart make-scenes d\n```\n"
        '`pip install "retinart[train]"` and `import retinart as r`\n'
    )
    assert commands_in(text) == {"detect", "export", "make-scenes"}
