"""The shape of the house: who may import whom, how long a file may be, what every package must hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import keyeloop

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("agent", "runtime", "tools", "sandbox", "model_backend")
CODE = (*ROOMS, "src", "training", "tests", "benchmarks", "examples")
MAX_LINES = 300
MAY_IMPORT = {
    "runtime": {"runtime"},
    "sandbox": {"sandbox", "runtime"},
    "tools": {"tools", "sandbox", "runtime"},
    "model_backend": {"model_backend", "runtime"},
    "agent": {"agent", "tools", "sandbox", "model_backend", "runtime"},
}
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "misc", "common"}
COMMITTED_BYTES = 24_000_000
BINARY = {".safetensors", ".mp4", ".npz", ".png", ".jpg"}


def python_files(*folders: str) -> list[Path]:
    """Every Python file below the named root folders, links not followed."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts and not any(parent.is_symlink() for parent in path.parents)
    )


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, wherever it stands; relative ones begin with a dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield node.lineno, base
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    allowed = {"keyeloop", "keyeloop.__version__", *(f"keyeloop.{name}" for name in MAY_IMPORT[room])}
    wrong = []
    for path in python_files(room):
        for line, name in imports(path):
            if name.startswith("keyeloop") and ".".join(name.split(".")[:2]) not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_rooms_are_imported_by_their_full_name() -> None:
    bare = {*ROOMS, "src"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in python_files(*CODE)
        for line, name in imports(path)
        if (name.split(".")[0] in bare or name.startswith("..")) and "user_folder" not in path.parts
    ]
    assert not wrong, "\n".join(wrong)


def test_training_is_imported_by_training_and_tests_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in python_files(*ROOMS, "src")
        for line, name in imports(path)
        if name.split(".")[0] in ("training", "tests")
    ]
    assert not wrong, "\n".join(wrong)


def test_files_stay_short_enough_to_read() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in python_files(*CODE)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]
    assert not long, "\n".join(long)


def test_names_say_something() -> None:
    vague = [str(path.relative_to(ROOT)) for path in python_files(*CODE) if VAGUE & {path.stem, path.parent.name}]
    assert not vague, vague


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_cannot_be_imported_twice(room: str) -> None:
    text = (ROOT / room / "__init__.py").read_text(encoding="utf-8")
    assert 'if not __name__.startswith("keyeloop."):\n    raise ImportError(' in text
    assert (ROOT / "src/keyeloop" / room).resolve() == ROOT / room
    run = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f"ImportError: import keyeloop.{room}, not {room}" in run.stderr


def test_every_folder_of_a_room_is_a_package() -> None:
    """Otherwise an installed wheel would lack it, its data included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *ROOMS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("no git here")
    folders = {folder for name in listed.stdout.split("\0") if name for folder in Path(name).parents} - {Path()}
    missing = sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").is_file())
    assert not missing, missing


def test_committed_binaries_stay_small() -> None:
    total = sum(path.stat().st_size for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in BINARY)
    assert total < COMMITTED_BYTES


def test_every_public_name_is_there() -> None:
    for name in keyeloop.__all__:
        assert getattr(keyeloop, name).__name__ == name
    facade = ast.parse((ROOT / "src/keyeloop/__init__.py").read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(facade) if isinstance(node, ast.ImportFrom)]
    declared = {alias.name for node in froms if (node.module or "").startswith("keyeloop.") for alias in node.names}
    assert declared == set(keyeloop.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = keyeloop.nothing


def test_importing_keyeloop_is_light() -> None:
    heavy = "{'torch', 'cv2', 'av', 'numpy', 'pydantic', 'httpx'}"
    code = f"import sys, keyeloop; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
