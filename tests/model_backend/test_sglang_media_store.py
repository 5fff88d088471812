"""What a server may read: one store by sha256, and nothing that a request could name besides."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS
from keyeloop.model_backend.sglang.plugin.media.asked import Asked
from keyeloop.model_backend.sglang.plugin.media.pictures import PictureLoader
from keyeloop.model_backend.sglang.plugin.media.store import ReferencedStore
from keyeloop.model_backend.sglang.wire import CLIP, ClipFrame, clip_url, read_clip, reference
from keyeloop.runtime.errors import ConfigError, InputError
from keyeloop.runtime.media import MediaStore


def grey(level: int, width: int = 56, height: int = 28) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def everything(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every entry below ``root``: mode, inode, change time and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        told = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(root))] = (told.st_mode, told.st_ino, told.st_mtime_ns, data)
    return found


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    (tmp_path / "store").mkdir()
    return MediaStore(tmp_path / "store")


def loader(store: MediaStore | None) -> PictureLoader:
    return PictureLoader(KEYE_2_LIMITS, ReferencedStore(store.root) if store else None)


def test_a_stored_picture_is_read_by_its_sha256_and_by_value(store: MediaStore) -> None:
    ref = store.put_image(grey(9))
    value = f"data:image/jpeg;base64,{base64.b64encode(store.read(ref.sha256)).decode()}"
    (named, sent), _ = loader(store).load([Asked(reference(ref.sha256)), Asked(value)], [])
    assert np.array_equal(named.pixels(), store.pixels(ref))
    assert named.identity == sent.identity


def test_what_a_request_names_outside_the_store_is_refused_and_the_store_left_alone(
    store: MediaStore, tmp_path: Path
) -> None:
    outside = MediaStore(tmp_path / "outside")
    stranger, inside = outside.put_image(grey(1)), store.put_image(grey(2))
    linked, folder_linked, fifo, changed = (outside.put_image(grey(level)).sha256 for level in (3, 4, 5, 6))
    for sha256 in (linked, fifo, changed):
        store.path(sha256).parent.mkdir(exist_ok=True)
    store.path(linked).symlink_to(outside.path(linked))
    if not store.path(folder_linked).parent.exists():
        store.path(folder_linked).parent.symlink_to(outside.path(folder_linked).parent)
    os.mkfifo(store.path(fifo))
    store.path(changed).write_bytes(b"not what its name says")
    path = store.path(inside.sha256)
    named = [
        str(path), path.as_uri(), f"file://{path}", f"{path}.png", "/etc/passwd", "etc/passwd", "../" + path.name,
        "http://127.0.0.1:9/a.png", "https://example.org/a.png", "ftp://127.0.0.1/a", "s3://bucket/a", "",
        base64.b64encode(path.read_bytes()).decode(), "data:text/plain;base64,aGk=", "data:image/png,abc",
        "data:image/png;base64,====", "data:video/mp4;base64,aGk=", "data:,x",
        "keyeloop-media:", f"keyeloop-media:/{path}", f"keyeloop-media:../{path.name}",
        f"keyeloop-media:{path.parent.name}/{path.name}", f"keyeloop-media:{inside.sha256.upper()}",
        f"keyeloop-media:{inside.sha256}/", f"keyeloop-media:{inside.sha256}\n", f" keyeloop-media:{inside.sha256}",
        f"keyeloop-media:{inside.sha256}\0", f"keyeloop-media:{stranger.sha256}", f"keyeloop-media:{linked}",
        f"keyeloop-media:{folder_linked}", f"keyeloop-media:{fifo}", f"keyeloop-media:{changed}",
        f"KEYELOOP-MEDIA:{inside.sha256}", f"keyeloop-media://{inside.sha256}", f"keyeloop-media:{'0' * 64}",
    ]  # fmt: skip
    before = everything(tmp_path)
    for url in named:
        with pytest.raises(InputError, match=r"^picture 1: "):
            loader(store).load([Asked(url)], [])
        with pytest.raises(InputError, match=r"^frame 1 of clip 1: "):
            loader(store).load([], [Asked(clip_url([(0.0, url)]))])
    assert everything(tmp_path) == before


def test_a_server_without_a_store_refuses_references() -> None:
    with pytest.raises(InputError, match="no media store"):
        loader(None).load([Asked(reference("0" * 64))], [])


def test_a_store_that_is_no_folder_is_told_at_the_start(tmp_path: Path) -> None:
    assert ReferencedStore.from_environment({}) is None
    named = ReferencedStore.from_environment({"KEYELOOP_MEDIA_STORE": str(tmp_path)})
    assert named is not None and named.root == tmp_path.resolve()
    with pytest.raises(ConfigError, match=r"KEYELOOP_MEDIA_STORE=.*is no folder"):
        ReferencedStore.from_environment({"KEYELOOP_MEDIA_STORE": str(tmp_path / "none")})


def test_a_clips_url_reads_back_as_it_was_written() -> None:
    frames = (ClipFrame(0.0, "a"), ClipFrame(0.1 + 0.2, "b"), ClipFrame(0.1 + 0.2, 'c"}'), ClipFrame(3600.04, "d"))
    assert read_clip(clip_url(frames)) == frames


@pytest.mark.parametrize(
    "told",
    [
        [], {}, {"frames": []}, {"frames": {}}, {"frames": [[1.0]]}, {"frames": [["1", "a"]]},
        {"frames": [[True, "a"]]},
        {"frames": [[1.0, 2]]}, {"frames": [[2.0, "a"], [1.0, "b"]]}, {"frames": [[1.0, "a"]], "fps": 2}, None, 3,
        {"frames": [[float("nan"), "a"]]}, {"frames": [[float("inf"), "a"]]},
    ],
)  # fmt: skip
def test_a_clip_that_is_not_as_it_is_written_is_refused(told: Any) -> None:
    with pytest.raises(InputError):
        read_clip(CLIP + json.dumps(told))


@pytest.mark.parametrize(
    "url",
    ["", "video.mp4", "/a.mp4", "file:///a.mp4", "http://h/a.mp4", CLIP, CLIP + "{", "data:video/mp4;base64,AA=="],
)
def test_a_video_by_any_other_name_is_refused(url: str, store: MediaStore) -> None:
    with pytest.raises(InputError):
        loader(store).load([], [Asked(url)])


def test_pictures_are_kept_from_one_request_to_the_next(store: MediaStore, monkeypatch: pytest.MonkeyPatch) -> None:
    url = reference(store.put_image(grey(7)).sha256)
    keeping = loader(store)
    (first,), _ = keeping.load([Asked(url)], [])
    monkeypatch.setattr(ReferencedStore, "read", None)  # not called again
    (again,), _ = keeping.load([Asked(url)], [])
    assert again is first


def test_kept_pictures_stay_within_their_bytes(store: MediaStore) -> None:
    stored = [store.put_image(grey(level)).sha256 for level in range(0, 50, 10)]
    last = sum(len(store.read(sha256)) for sha256 in stored[-2:])
    keeping = PictureLoader(KEYE_2_LIMITS, ReferencedStore(store.root), kept_bytes=last)
    urls = [reference(sha256) for sha256 in stored]
    for url in urls:
        keeping.load([Asked(url)], [])
    assert keeping.held_bytes == last
