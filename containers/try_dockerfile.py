"""Follow a Dockerfile in bare Debian roots, without a container engine; it needs root on Debian.

    mmdebstrap --variant=minbase bookworm /tmp/bare http://deb.debian.org/debian
    python containers/try_dockerfile.py --bare /tmp/bare --work /tmp/try -- detect --help

Each FROM becomes a copy of the bare root; the image's name does not matter. Each RUN line runs in
this copy by chroot. Then the entry point runs with the words after `--`, as the file's user. Its
root is read-only, /tmp is writable, and the given folder is at /work.

RUN lines see this machine's proxy, certificates and settings of pip. Files and folders that these
name are bound below /run/host, read-only, so they do not stay in the root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "/run/host"  # of what RUN lines see of this machine
_PASSED = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile: name and rest, with lines that go on joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def unquoted(rest: str) -> list[str]:
    """The words of the form that is a list in JSON."""
    return [str(word) for word in json.loads(rest)]


class Stage:
    """A stage as it is built.

    Attributes:
        root: its root.
        env, user, folder: what ENV, USER and WORKDIR have set.
        entry: of ENTRYPOINT.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.user, self.folder = root, "0:0", "/"
        self.env: dict[str, str] = {}
        self.entry: list[str] = []

    def command(self, words: list[str], *, user: str = "0:0") -> list[str]:
        """What runs words in the root."""
        base = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        env = [f"{name}={value}" for name, value in {**base, **self.env}.items()]
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        chroot = ["chroot", f"--userspec={user}", str(self.root)]
        return [*chroot, "/usr/bin/env", "-i", *env, "/bin/sh", "-c", inside]


def main() -> int:
    """Follow the file, and run the entry point; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--file", type=Path, default=ROOT / "containers" / "Dockerfile")
    parser.add_argument("--context", type=Path, default=ROOT, help="what COPY copies from")
    parser.add_argument("--bare", type=Path, required=True, help="what debootstrap made")
    parser.add_argument("--work", type=Path, required=True, help="a new folder for the roots")
    parser.add_argument("--mount", type=Path, help="a folder that is /work for the entry point")
    parser.add_argument(
        "--add", type=Path, action="append", default=[], help="copy this into each root: a mirror"
    )
    parser.add_argument("--env", action="append", default=[], help="NAME=VALUE for RUN lines")
    parser.add_argument("words", nargs="*", help="for the entry point")
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    given, bound = seen_in_the_root(host_settings())
    more = {**given, **dict(one.split("=", 1) for one in args.env)}
    for path in bound:
        print(f"RUN lines see {path} as {HOST}{path}", flush=True)
    stages: list[Stage] = []
    names: dict[str, Stage] = {}
    for name, rest in instructions(args.file.read_text("utf-8")):
        if name == "FROM":
            stage = Stage(args.work / f"stage{len(stages)}")
            stages.append(stage)
            subprocess.run(["cp", "-a", "--reflink=auto", args.bare, stage.root], check=True)
            for path in (Path("/etc/resolv.conf"), *args.add):
                subprocess.run(["cp", "-aL", "--parents", path, stage.root], check=True)
            if " AS " in rest:
                names[rest.split(" AS ")[1].strip()] = stage
        elif name == "RUN":
            run(stage, rest, more, bound)
        elif name == "COPY":
            copy(stage, names, rest, args.context.resolve())
        elif name == "ENV":
            stage.env |= dict(one.split("=", 1) for one in shlex.split(rest))
        elif name == "USER":
            stage.user = rest
        elif name == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENTRYPOINT":
            stage.entry = unquoted(rest)
        else:
            print(f"left out: {name}", flush=True)
    return enter(stage, args.mount, args.words)


def host_settings() -> dict[str, str]:
    """This machine's settings of pip, its proxy and its certificates, as variables."""
    found = {name: os.environ[name] for name in _PASSED if name in os.environ}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    # global.cert='/etc/ssl/own.pem'; what the environment sets comes as :env:.cert
    pairs = re.findall(r"^(:env:|global|install)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE)
    for section, key, value in sorted(pairs, key=lambda pair: pair[0] == ":env:"):
        if section != ":env:" or key != "config-file":
            found[f"PIP_{key.upper().replace('-', '_')}"] = value.replace("\\n", " ").strip()
    return found


def seen_in_the_root(settings: dict[str, str]) -> tuple[dict[str, str], list[Path]]:
    """Settings with local paths as RUN lines see them, and the paths that must be bound for that.

    Of an index of packages the folder around it is bound, because its links lead there.
    """
    bound = set[Path]()

    def moved(word: re.Match[str]) -> str:
        scheme, path = word[1] or "", Path(word[2])
        if not path.exists():
            return word[0]
        bound.add(path.parent if scheme else path)
        return f"{scheme}{HOST}{path}"

    changed = {
        name: re.sub(r"(?<!\S)(file://)?(/\S+)", moved, value) for name, value in settings.items()
    }
    return changed, sorted(bound)


def run(stage: Stage, line: str, more: dict[str, str], bound: list[Path]) -> None:
    """Run a RUN line as root, with paths of this machine bound below `HOST`."""
    print(f"RUN {line}", flush=True)
    begun = time.monotonic()
    before, stage.env = stage.env, {**stage.env, **more}
    script = [f"mount -t tmpfs tmpfs {shlex.quote(str(stage.root / 'run'))}"]
    for path in bound:
        at = Path(f"{stage.root}{HOST}{path}")
        source, made = shlex.quote(str(path)), shlex.quote(str(at))
        script += [
            f"mkdir -p {shlex.quote(str(at if path.is_dir() else at.parent))}",
            f"{{ test -e {made} || touch {made}; }}",
            f"mount --bind {source} {made}",
            f"mount -o remount,bind,ro {made}",
        ]
    script.append(f"exec {shlex.join(stage.command(['/bin/sh', '-c', line]))}")
    inside = ["unshare", "--mount", "/bin/sh", "-c", " && ".join(script)]
    done = subprocess.run(inside, check=False)
    stage.env = before
    print(f"    exit {done.returncode} after {time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        sys.exit(1)


def copy(stage: Stage, names: dict[str, Stage], rest: str, context: Path) -> None:
    """Follow COPY of the context, or of another stage."""
    words = shlex.split(rest)
    source = context
    if words[0].startswith("--from="):
        source = names[words.pop(0).partition("=")[2]].root
    *paths, target = words
    into = stage.root / str(Path(stage.folder, target)).lstrip("/")
    for path in paths:
        if source == context:
            for file in files_of(context, path):
                (into / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(context / file, into / file)
        else:
            subprocess.run(["cp", "-a", source / path.lstrip("/"), into], check=True)
    print(f"COPY {rest}", flush=True)


def files_of(context: Path, path: str) -> list[str]:
    """The files of a path of the context: of the repository those that git knows, else all."""
    if context != ROOT:
        found = [context / path, *(context / path).rglob("*")]
        return [file.relative_to(context).as_posix() for file in found if file.is_file()]
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", path]
    files = subprocess.run(listed, check=True, capture_output=True).stdout.decode()
    return list(filter(sent, files.split("\0")))


def sent(file: str) -> bool:
    """Whether a file of the context is copied: `.dockerignore` leaves folders and files out."""
    patterns = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    first = file.partition("/")[0]
    return bool(file) and not any(fnmatch(first, one) for one in patterns if "#" not in one)


def enter(stage: Stage, mount: Path | None, words: list[str]) -> int:
    """Run the entry point as the file's user, on a read-only root, in mounts of its own."""
    root, bind = shlex.quote(str(stage.root)), ""
    if mount is not None:
        bind = f"mount --bind {shlex.quote(str(mount))} {root}/work && "
    inside = shlex.join(stage.command([*stage.entry, *words], user=stage.user))
    script = (
        f"mount --bind {root} {root} && mount -o remount,bind,ro {root} && "
        f"mount -t tmpfs tmpfs {root}/tmp && mount -t proc proc {root}/proc && "
        f"mount --bind /dev {root}/dev && {bind}"
        f"! touch {root}/written 2>/dev/null && {inside}"
    )
    print(f"ENTRYPOINT {shlex.join([*stage.entry, *words])}", flush=True)
    return subprocess.run(["unshare", "--mount", "/bin/sh", "-c", script], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
