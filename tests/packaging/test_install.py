"""Installed from a wheel, from a tree without links, and editable: a script beside its own ``tools.py`` works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("agent", "runtime", "tools", "sandbox", "model_backend")
NO_DATA = {".md"}


def run(*command: object, cwd: Path) -> str:
    """Run a command to success, away from this checkout's paths, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def project_files() -> list[str]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's own files, links as links."""
    place = tmp_path_factory.mktemp("tree")
    for name in project_files():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    return place


@pytest.fixture(scope="module")
def without_links(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a zip download unpacks it where links are not made: each is a text file that names its target."""
    place = tmp_path_factory.mktemp("zip") / "keyeloop-main"
    shutil.copytree(tree, place, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "build", "dist"))
    for room in ROOMS:
        link = place / "src/keyeloop" / room
        target = str(link.readlink())
        link.unlink()
        link.write_text(target)
    return place


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sdist, then the wheel from the sdist."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", place, tree, cwd=place)
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment, with what the project depends on and nothing of the project."""
    place = tmp_path_factory.mktemp("venv")
    system = ["--system-site-packages"] if "include-system-site-packages = true" in _venv_settings() else []
    run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", *system, place, cwd=place)
    made = place / "bin/python"
    run(made, "-m", "pip", "install", "--quiet", "--requirement", _requirements(place), cwd=place)
    return made


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """A fresh board video, a second at which it shows a number, and the number."""
    from keyeloop.tools.demo_video.record import record

    recording = record(tmp_path_factory.mktemp("video") / "board.mp4", seed=417, duration_s=24.0)
    for question in recording.questions:
        if question.family == "read" and question.answer.isdigit() and question.times_s[0].is_integer():
            return recording.path, int(question.times_s[0]), int(question.answer)
    raise AssertionError("the video shows no number")


def test_the_wheel_holds_every_module_and_all_data(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"keyeloop/{name}"
        for name in project_files()
        if name.split("/")[0] in ROOMS and Path(name).suffix not in NO_DATA
    }
    assert wanted - packed == set()
    assert {name.split("/")[0] for name in packed} == {"keyeloop", "keyeloop-0.1.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in packed)
    (source,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert any(name.endswith("/LICENSE") for name in archive.getnames())


@pytest.mark.parametrize("model", ["scripted", "keye-tiny"])
@pytest.mark.parametrize("way", ["wheel", "without_links", "editable"])
def test_a_script_beside_its_own_tools_module(
    way: str, model: str, python: Path, request: pytest.FixtureRequest, board: tuple[Path, int, int], tmp_path: Path
) -> None:
    pip = (python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall")
    what = ["--editable", request.getfixturevalue("tree")] if way == "editable" else [request.getfixturevalue(way)]
    run(*pip, *what, cwd=tmp_path)
    folder = tmp_path / "user"
    shutil.copytree(Path(__file__).with_name("user_folder"), folder)
    video, seconds, number = board
    script = [number] if model == "scripted" else []
    said = run(python, "hello.py", video, seconds, *script, cwd=folder).splitlines()
    assert said[:2] == ["made file_number for top low", f"called {number} top"]
    assert said[-1].startswith("answered answered")
    (journal,) = (folder / "runs").glob("*/journal.jsonl")
    assert json.loads(journal.read_text().splitlines()[-1])["status"] == "answered"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    leaks = "import importlib.util as u; print([n for n in ('agent','tools','sandbox') if u.find_spec(n)])"
    assert run(python, "-c", leaks, cwd=elsewhere).strip() == "[]"
    assert "keyeloop" in run(python.parent / "keyeloop", "--help", cwd=elsewhere)


def _venv_settings() -> str:
    return (Path(sys.prefix) / "pyvenv.cfg").read_text()


def _requirements(place: Path) -> Path:
    """What ``keyeloop[local]`` asks for, at the versions that this environment has."""
    import tomllib
    from importlib.metadata import version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["local"], "setuptools"]
    names = [name.replace(">", "<").split("<")[0].split("=")[0] for name in wanted]
    path = place / "requirements.txt"
    path.write_text("\n".join(f"{name}=={version(name)}" for name in names))
    return path
