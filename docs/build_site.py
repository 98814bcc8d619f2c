"""Builds the documentation site: `make docs` writes it to build/site.

The pages are those that a Git host shows. This lays README.md and docs/, and all that they link to,
into build/pages under their own paths. So the links hold in both places. Two pages get an addition:
the options of every command, from the parsers, and the Python API, from docstrings. Zensical makes
HTML of the pages. It checks the links between them; at the end this follows every link of the HTML,
also those to pictures and files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import retinart
from retinart.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES, API, SITE = (ROOT / "build" / name for name in ("pages", "api", "site"))
PACKAGES = ("benchmarks", "calib", "engine", "export", "train", "verify")
LANGUAGES = {".py": "python", ".cu": "cpp", ".cpp": "cpp", ".txt": "cmake", "": "text"}

_CODE_OR_LINK = re.compile(
    r"^```.*?^```|^    .*?$|`[^`\n]+`|\]\((?P<target>[^)\s]+)\)", re.DOTALL | re.MULTILINE
)
_NO_ROW = (argparse._HelpAction, argparse._SubParsersAction)
_ADDRESS = re.compile(r"[a-z][a-z+.-]*:|#")


def main() -> int:
    """Build the site; returns the exit code."""
    lay_pages()
    lay_api()
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        return done.returncode
    broken = list(broken_links(SITE))
    for line in broken:
        print(line, file=sys.stderr)
    pages = len(list(SITE.rglob("*.html")))
    print(f"{SITE / 'index.html'}: {pages} pages, {len(broken)} broken links")
    return 1 if broken else 0


def lay_pages() -> None:
    """Fill build/pages with README.md, docs/, the results, and what they link to."""
    shutil.rmtree(PAGES, ignore_errors=True)
    todo = [ROOT / "README.md"]
    for folder in ("docs", "benchmarks/results"):
        todo += sorted((ROOT / folder).rglob("*.md"))
    seen = set(todo)
    for source in todo:  # grows meanwhile
        name = source.relative_to(ROOT)
        for linked in lay(source, PAGES / name):
            if linked not in seen and linked.is_file():
                seen.add(linked)
                todo.append(linked)


def lay(source: Path, place: Path) -> list[Path]:
    """Write one file of the site, and return the files that it links to.

    A source file becomes a page, so that a browser shows it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix in LANGUAGES:
        name, text = source.relative_to(ROOT), source.read_text("utf-8")
        fence = "`" * 5
        page = f"# {name}\n\n{fence}{LANGUAGES[source.suffix]}\n{text}{fence}\n"
        page_of(place).write_text(page, "utf-8")
        return []
    if source.suffix != ".md":
        shutil.copyfile(source, place)
        return []
    found: list[Path] = []

    def follow(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or _ADDRESS.match(target):
            return match[0]
        path, mark, anchor = target.partition("#")
        linked = (source.parent / path).resolve()
        found.append(linked)
        shown = str(page_of(Path(path))) if linked.suffix in LANGUAGES else path
        return f"]({shown}{mark}{anchor})"

    text = _CODE_OR_LINK.sub(follow, source.read_text("utf-8"))
    added = {"docs/command-line.md": commands, "docs/python.md": names}
    make = added.get(source.relative_to(ROOT).as_posix())
    place.write_text(text + ("\n" + make() if make else ""), "utf-8")
    return found


def page_of(source: Path) -> Path:
    """The page that shows a source file."""
    return source.with_name(f"{source.name}.md")


def lay_api() -> None:
    """Links to the packages under the names that they are imported by, which mkdocstrings reads."""
    shutil.rmtree(API, ignore_errors=True)
    (API / "retinart").mkdir(parents=True)
    for entry in [*(ROOT / "src" / "retinart").iterdir(), *(ROOT / name for name in PACKAGES)]:
        (API / "retinart" / entry.name).symlink_to(entry)


def commands() -> str:
    """Every command with its options, from the parsers."""
    return "\n".join(["## Every command\n", *_commands(build_parser())])


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _command(command)
                yield from _commands(command)


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"### {parser.prog}\n"
    yield f"{_plain(parser.description or '')}\n"
    if parser.epilog:
        _, *examples = parser.epilog.splitlines()
        yield "\n".join(["```", *(line.strip() for line in examples), "```\n"])
    rows = [_row(action) for action in parser._actions if not isinstance(action, _NO_ROW)]
    if rows:
        yield "\n".join(["| option | what it does |", "|---|---|", *rows]) + "\n"


def _row(action: argparse.Action) -> str:
    """One option as a row of a table."""
    choices = ",".join(map(str, action.choices or ()))
    value = action.metavar or (f"{{{choices}}}" if choices else "")
    if isinstance(value, tuple):
        value = " ".join(value)
    if action.nargs == 0:
        value = ""
    elif action.option_strings and not value:
        value = action.dest.upper()
    shown = f"{', '.join(action.option_strings)} {value}".strip() or action.dest
    cells = f"`{shown}`", _plain((action.help or "") % vars(action))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text in which Markdown finds no marks."""
    return re.sub(r"([*_<\[])", r"\\\1", text)


def names() -> str:
    """What mkdocstrings fills in: the public names, and two records that `stream` uses."""
    first = ("Detector", "Detections")
    own = [f"retinart.{name}" for name in dict.fromkeys([*first, *retinart.__all__])]
    other = ["retinart.engine.media.settings.StreamSettings", "retinart.engine.media.frame.Frame"]
    return "\n".join(["## Every name\n", *(f"::: {name}\n" for name in [*own, *other])])


class _Links(HTMLParser):
    """Collects the targets of links and pictures, and the anchors, of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """The links between the files of a site that lead nowhere."""
    ours = [page for page in sorted(site.rglob("*.html")) if page.name != "404.html"]
    pages = {page: _Links(page.read_text("utf-8")) for page in ours}
    for page, links in pages.items():
        for target in links.targets:
            if (_ADDRESS.match(target) and not target.startswith("#")) or target.startswith("//"):
                continue
            path, _, anchor = unquote(target).partition("#")
            linked = (page.parent / path.partition("?")[0]).resolve() if path else page
            linked = linked / "index.html" if linked.is_dir() else linked
            if not linked.is_file():
                yield f"{page.relative_to(site)}: {target}: no such file"
            elif linked in pages and anchor not in pages[linked].anchors:
                yield f"{page.relative_to(site)}: {target}: no such anchor"


if __name__ == "__main__":
    sys.exit(main())
