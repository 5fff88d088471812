"""The files of an image: a Python, some packages, the libraries they load, and a few programs. No registry involved.

Everything is taken from this machine. Fixed places inside, so that the host's folders are not told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from keyeloop.runtime.errors import InputError
from keyeloop.sandbox.interpreter import Interpreter, interpreter
from keyeloop.sandbox.spec import INPUTS, OUTPUTS, WORK

PYTHON: Final = PurePosixPath("/opt/python")
SITE: Final = PurePosixPath("/opt/site")
PROGRAMS: Final = tuple(
    "sh cat chmod cp cut date du echo env false find grep gzip head ls mkdir mv nproc pwd rm sed sleep sort tail "
    "tar tee touch tr true uname uniq wc xargs yes".split()
)
_LEFT_OUT: Final = frozenset(
    "ensurepip idlelib lib2to3 site-packages dist-packages test tests tkinter turtledemo".split()
)
_FOLDERS: Final = (INPUTS, WORK, OUTPUTS, *(PurePosixPath(name) for name in ("/tmp", "/proc", "/sys", "/dev", "/etc")))
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)")
_QUESTION: Final = """
import importlib.metadata as metadata, json, re, sys, sysconfig
files, versions, wanted = {}, {}, sys.argv[1:]
while wanted:
    name = re.split(r"[ ;<>=!~\\[(]", wanted.pop())[0].lower()
    if name in versions:
        continue
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        versions[name] = None
        continue
    versions[name] = found.version
    wanted += [line for line in found.requires or () if "extra ==" not in line and "python_version <" not in line]
    for file in found.files or ():
        if ".." not in file.parts:
            files[str(file)] = str(file.locate())
print(json.dumps([sysconfig.get_path("stdlib"), versions, files]))
"""


@dataclass(frozen=True)
class Tree:
    """What goes into an image."""

    python: Interpreter
    library: Path
    """The standard library's folder."""
    versions: dict[str, str]
    """Of the packages, those they need included."""
    files: dict[str, Path]
    """Of the packages, by path below the package folder."""


def survey(python: Path | None, packages: Sequence[str]) -> Tree:
    """Find the packages in ``python`` (None: the one that runs this). Raises InputError naming what is missing."""
    asked = str(python or sys.executable)
    try:
        run = subprocess.run(
            [asked, "-I", "-c", _QUESTION, *packages], capture_output=True, text=True, check=True, timeout=60, cwd="/"
        )
        library, versions, files = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(f"{asked} cannot be put into an image: {error}") from error
    if missing := sorted(name for name in packages if not versions.get(name.lower())):
        names = " ".join(missing)
        raise InputError(f"{asked} lacks {names}: {asked} -m pip install {names}, or name another with --python")
    present = {name: version for name, version in versions.items() if version}
    return Tree(interpreter(python), Path(library), present, {name: Path(path) for name, path in files.items()})


def write_rootfs(tree: Tree, target: Path) -> None:
    """Write the whole tree as a tar archive."""
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    library = PYTHON / "lib" / tree.library.name
    with tarfile.open(target, "w", dereference=False) as archive:
        rootfs = _Archive(archive)
        for folder in _FOLDERS:
            rootfs.folder(folder)
        rootfs.file(tree.python.executable, PYTHON / "bin" / tree.python.executable.name)
        for alias in ("python3", "python"):
            if alias != tree.python.executable.name:
                rootfs.link(PYTHON / "bin" / alias, tree.python.executable.name)
        loaded = [tree.python.executable, *programs]
        for path in _standard_library(tree.library):
            rootfs.file(path, library / path.relative_to(tree.library))
            loaded += [path] if ".so" in path.name else []
        for name, path in tree.files.items():
            if path.is_file() and "tests" not in path.parts[-4:-1]:
                rootfs.file(path, SITE / name)
                loaded += [path] if ".so" in path.name else []
        own = {path.resolve() for path in tree.files.values()}
        for path in sorted(_libraries(loaded, tree.python.prefix / "lib")):
            if path.resolve() not in own:
                inside = path.is_relative_to(tree.python.prefix) and not path.is_relative_to("/usr")
                rootfs.system(path, PYTHON / "lib" / path.name if inside else None)
        for path in programs:
            rootfs.system(path, None)


class _Archive:
    """Adds each thing once, with its folders, owned by root."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._seen: set[PurePosixPath] = {PurePosixPath("/")}

    def folder(self, path: PurePosixPath) -> None:
        for each in (*reversed(path.parents), path):
            if each not in self._seen:
                self._add(_entry(each, tarfile.DIRTYPE, 0o755))

    def link(self, path: PurePosixPath, target: str) -> None:
        self.folder(path.parent)
        if path not in self._seen:
            entry = _entry(path, tarfile.SYMTYPE, 0o777)
            entry.linkname = target
            self._add(entry)

    def file(self, source: Path, path: PurePosixPath) -> None:
        """The content of ``source``, links followed."""
        self.folder(path.parent)
        if path in self._seen:
            return
        about = source.stat()
        entry = _entry(path, tarfile.REGTYPE, 0o755 if about.st_mode & 0o111 else 0o644)
        entry.size, entry.mtime = about.st_size, int(about.st_mtime)  # compiled files are good for this time only
        with source.open("rb") as content:
            self._archive.addfile(entry, content)
        self._seen.add(path)

    def system(self, source: Path, path: PurePosixPath | None) -> None:
        """A file of the system where it lies, with the link that the first part of its path may be."""
        if path is None:
            top = Path("/", source.parts[1])
            if top.is_symlink():
                self.link(PurePosixPath(top), str(top.readlink()))
                source = top.resolve() / source.relative_to(top)
            path = PurePosixPath(source)
        self.file(source, path)

    def _add(self, entry: tarfile.TarInfo) -> None:
        self._archive.addfile(entry)
        self._seen.add(PurePosixPath("/") / entry.name)


def _entry(path: PurePosixPath, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(path.relative_to("/")))
    entry.type, entry.mode = kind, mode
    return entry


def _standard_library(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        for name in sorted(names):
            path = Path(here, name)
            if path.is_file() and not name.endswith((".a", ".exe")):
                yield path


def _libraries(loaded: Sequence[Path], own: Path) -> set[Path]:
    """Every library that the dynamic loader of this machine finds for these files, the loader included."""
    asked = subprocess.run(
        ["ldd", *map(str, loaded)], capture_output=True, text=True, check=False, timeout=300,
        env={"LD_LIBRARY_PATH": str(own), "PATH": os.defpath},
    )  # fmt: skip
    return {Path(found[1]) for line in asked.stdout.splitlines() if (found := _LIBRARY.search(line))}
