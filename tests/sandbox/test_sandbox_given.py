"""Files that the host gives to code: read-only, in the folder where code starts, there again after a restart."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.sandbox import Mount
from tests.sandbox.engines import Engine

pytestmark = pytest.mark.sandbox
TRY_WRITE = (
    "try:\n    open({name!r}, 'a')\n    print('written')\nexcept OSError as error:\n    print(type(error).__name__)"
)


def test_given_files_are_read_only_and_outlive_the_worker(engine: Engine, tmp_path: Path) -> None:
    big = bytes(range(256)) * 10_000  # several pieces
    (tmp_path / "clip.mp4").write_bytes(big)
    with engine.open() as sandbox:
        sandbox.put("f1.jpg", b"first", read_only=True)
        sandbox.put("f1.jpg", b"frame", read_only=True)
        sandbox.put("clip.mp4", tmp_path / "clip.mp4", read_only=True)
        sandbox.put("plain.txt", b"x")
        look = "print(open('f1.jpg').read(), len(open('clip.mp4', 'rb').read()), __import__('os').listdir('.'))"
        assert sandbox.exec(look).stdout.startswith(f"frame {len(big)} ")
        assert sandbox.exec(TRY_WRITE.format(name="f1.jpg")).stdout == "PermissionError\n"
        assert sandbox.exec("import os\nos._exit(1)").state_lost
        after = sandbox.exec(look)
        assert after.stdout.startswith(f"frame {len(big)} ") and "plain.txt" not in after.stdout
        sandbox.reset()
        assert sandbox.exec("print(__import__('os').listdir('.'))").stdout == "[]\n"


def test_a_loss_is_told_by_the_execution_after_it_whatever_came_between(engine: Engine) -> None:
    with engine.open() as sandbox:
        sandbox.exec("x = 1\nimport os, threading\nthreading.Timer(0.2, os._exit, [0]).start()")
        while not sandbox._running.exited():  # type: ignore[union-attr]
            pass
        sandbox.put("between.txt", b"given by the host while nobody looked")
        told = sandbox.exec("print(open('between.txt').read()[:5])")
        assert told.state_lost and told.stdout == "given\n"
        assert not sandbox.exec("1").state_lost


def test_mounts_lie_under_their_names_where_code_starts(engine: Engine, tmp_path: Path) -> None:
    clip = tmp_path / "some name.mp4"
    clip.write_bytes(b"frames")
    clip.chmod(0o644)
    with engine.open(mounts=(Mount(clip.resolve(), PurePosixPath("video-1.mp4")),)) as sandbox:
        assert (
            sandbox.exec("print(open('video-1.mp4').read(), open('/in/video-1.mp4').read())").stdout
            == "frames frames\n"
        )
        refused = sandbox.exec(TRY_WRITE.format(name="video-1.mp4")).stdout
        assert refused in ("OSError\n", "PermissionError\n")
    assert clip.read_bytes() == b"frames"


def test_a_file_of_a_mounted_folder_gets_a_name_where_code_starts(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path.resolve() / "videos"
    (folder / "day 1").mkdir(parents=True)
    (folder / "day 1" / "some.mp4").write_bytes(b"frames")
    for path in (folder, folder / "day 1"):
        path.chmod(0o755)
    with engine.open(mounts=(Mount(folder, PurePosixPath("videos")),)) as sandbox:
        sandbox.link("video-1.mp4", PurePosixPath("/in/videos/day 1/some.mp4"))
        for _ in range(2):  # also after a restart
            assert sandbox.exec("print(open('video-1.mp4').read())").stdout == "frames\n"
            refused = sandbox.exec(TRY_WRITE.format(name="video-1.mp4")).stdout
            assert refused in ("OSError\n", "PermissionError\n")
            assert sandbox.exec("import os\nos._exit(1)").state_lost
        with pytest.raises(InputError, match="File exists"):
            sandbox.link("video-1.mp4", PurePosixPath("/in/videos/other.mp4"))
        for name, target in (
            ("../x", "/in/videos"),
            ("/etc/x", "/in/videos"),
            ("x", "/etc/passwd"),
            ("x", "/in/../etc"),
        ):
            with pytest.raises(InputError):
                sandbox.link(name, PurePosixPath(target))
        sandbox.reset()
        assert sandbox.exec("print('video-1.mp4' in __import__('os').listdir('.'))").stdout == "False\n"
    assert (folder / "day 1" / "some.mp4").read_bytes() == b"frames"


def test_a_given_file_that_is_gone_meanwhile_does_not_stop_the_next_worker(engine: Engine, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"frames")
    with engine.open() as sandbox:
        sandbox.put("clip.mp4", clip, read_only=True)
        clip.unlink()
        assert sandbox.exec("print(open('clip.mp4').read())\nimport os\nos._exit(1)").stdout == "frames\n"
        assert sandbox.exec("print(1)").stdout == "1\n"
