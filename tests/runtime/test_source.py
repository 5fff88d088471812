"""Hashes of source files: right, cached only while nothing changed, clear about what is no file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.source import BackgroundHash, hash_file


def settled(path: Path, data: bytes, age_s: float = 60) -> Path:
    path.write_bytes(data)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_a_known_file_is_not_read_again(tmp_path: Path) -> None:
    path, cache = settled(tmp_path / "v.mp4", b"x" * 3_000_000), tmp_path / "cache"
    assert hash_file(path, cache) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    (entry,) = (cache / "hashes").iterdir()
    known = json.loads(entry.read_text())
    entry.write_text(json.dumps({**known, "sha256": "from the cache"}))
    assert hash_file(path, cache) == "from the cache"


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, cache = settled(tmp_path / "v", b"one"), tmp_path / "cache"
    hash_file(path, cache)
    settled(path, b"two", age_s=30)  # same size, other time
    assert hash_file(path, cache) == hashlib.sha256(b"two").hexdigest()
    status = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # same size and time, other inode
    assert hash_file(path, cache) == hashlib.sha256(b"six").hexdigest()


def test_a_fresh_file_is_not_trusted_to_its_time_stamp(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"fresh")
    hash_file(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_broken_or_unwritable_cache_only_costs_time(tmp_path: Path) -> None:
    path, cache = settled(tmp_path / "v", b"one"), tmp_path / "cache"
    right = hash_file(path, cache)
    (entry,) = (cache / "hashes").iterdir()
    entry.write_text("no json")
    assert hash_file(path, cache) == right
    assert hash_file(path, path) == right  # the cache "folder" is a file


@pytest.mark.parametrize(
    "name,problem", [("none.mp4", "no such file"), (".", "is a folder"), ("pipe", "no regular file")]
)
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=problem):
        hash_file(tmp_path / name, tmp_path / "cache")
    with pytest.raises(InputError, match=problem):
        BackgroundHash(tmp_path / name, tmp_path / "cache").sha256()


async def test_in_the_background(tmp_path: Path) -> None:
    path = settled(tmp_path / "v", b"x" * 1000)
    task = BackgroundHash(path, tmp_path / "cache")
    assert await task.wait() == task.sha256() == hashlib.sha256(b"x" * 1000).hexdigest()
    assert task.done
