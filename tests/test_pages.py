"""The pages: links lead somewhere, and what the README names is there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support import ROOT, run_python

# what is made here, for where git cannot be asked
NOT_SHIPPED = frozenset({".git", ".venv", "build", "dist", "runs"})


def readme() -> str:
    file = ROOT / "README.md"
    if not file.is_file():
        pytest.skip("there is no README.md")
    return file.read_text("utf-8")


def shipped_files() -> set[Path]:
    """What a clone would hold: all that git has or would take. Without git, all that lies here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = {ROOT / name for name in listed.stdout.split("\0") if name}
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = {p for p in ROOT.rglob("*") if p.relative_to(ROOT).parts[0] not in NOT_SHIPPED}
    return {path for path in found if path.is_file()}


def links_in(text: str) -> list[str]:
    """Targets of relative links in Markdown, but not of those in code."""
    text = re.sub(r"^```.*?^```|^    .*?$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z][a-z+.-]*:|#", target)]


def test_relative_links_lead_to_what_is_shipped() -> None:
    """A file that .gitignore drops is here and in no clone, so the disk alone does not tell."""
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
    assert not missing, "links to what no clone has:\n" + "\n".join(missing)


def test_links_are_found_outside_of_code_only() -> None:
    text = (
        "[a](a.md) and ![b](<b.png>) `[c](c.md)` [d](https://d) [e](#e) [`f`](f.md#g)\n"
        '    [h](h.md)\n```\n[i](i.md)\n```\n<img src="j.png">\n'
    )
    assert links_in(text) == ["a.md", "b.png", "f.md#g", "j.png"]


def test_the_readme_names_the_pytorch_of_the_constraints() -> None:
    """Another version would be replaced by the large one as soon as `make` installs."""
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    named = re.findall(r"\btorch==\S+", readme())
    assert named and set(named) <= set(pins), f"README.md: {named}, constraints.txt has another"


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


def test_commands_that_the_readme_names_exist() -> None:
    unknown = {}
    for command in sorted(commands_in(readme())):
        done = run_python("-m", "retinart", command, "--help")
        if done.returncode:
            unknown[command] = done.stderr.strip()[-200:]
    assert not unknown, f"README.md names commands that there are not: {unknown}"


def test_commands_are_found_in_code_only() -> None:
    text = (
        "Then retinart sings.\n`retinart detect a.onnx`\n```sh\nmake demo\n"
        ".venv/bin/retinart export x\npython -m retinart make-scenes d\n```\n"
        '`pip install "retinart[train]"` and `import retinart as r`\n'
    )
    assert commands_in(text) == {"detect", "export", "make-scenes"}
