"""A run packed with the files that it looked into: they come back under their sha256, checked, and are found there."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.events import RunEnded, RunStart
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.journal import Journal
from keyeloop.runtime.journal.checking import check_run
from keyeloop.runtime.journal.portable import pack, unpack
from keyeloop.runtime.journal.sources import link_own, located
from keyeloop.runtime.trajectory import Trajectory

CONTENT = b"a video, as far as bytes go" * 100_000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that looked into a video, named twice, and into a picture whose ending is odd."""
    inputs = []
    for name, file in (("video-1", "Board.MP4"), ("video-2", "Board.MP4"), ("image-1", "x.?")):
        path, data = tmp_path / file, CONTENT if file == "Board.MP4" else b"p"
        path.write_bytes(data)
        inputs.append(Source(name, "video", hashlib.sha256(data).hexdigest(), str(path), 4, 4))
    with Journal.create(tmp_path / "runs" / "one", SystemClock()) as journal:
        journal.append(RunStart(run_id="one", question="?", model="m", inputs=tuple(inputs)))
        journal.append(RunEnded(status="answered", answer="4"))
    return tmp_path / "runs" / "one"


def test_sources_come_along_and_are_found_where_the_first_are_gone(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.keyeloop"
    size = pack(run, file, sources=True)
    assert size > len(CONTENT), "a video is not compressed again, and held once"
    assert size < 1.1 * len(CONTENT)
    (tmp_path / "Board.MP4").unlink()
    (tmp_path / "x.?").unlink()
    with pytest.raises(InputError, match=r"video-1 cannot be packed: .*Board\.MP4 is gone or has changed"):
        pack(run, tmp_path / "two.keyeloop", sources=True)
    back = unpack(file, tmp_path / "elsewhere")
    assert check_run(back).sound
    inputs = Trajectory.read(back).start.inputs
    found = located(inputs, back)
    assert Path(found["video-1"].path).read_bytes() == CONTENT and found["video-1"].path.endswith(".mp4")
    assert found["video-2"].path == found["video-1"].path and Path(found["image-1"].path).suffix == ""
    assert [located(inputs, run)[one.name] for one in inputs] == list(inputs), "as recorded where there are none"
    assert pack(back, tmp_path / "again.keyeloop", sources=True) == size
    assert (tmp_path / "again.keyeloop").read_bytes() == file.read_bytes()
    link_own(back, tmp_path / "fork")
    linked = located(inputs, tmp_path / "fork")["video-1"]
    assert Path(linked.path).samefile(found["video-1"].path) and linked.path != found["video-1"].path


def test_a_source_that_was_changed_is_named(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.keyeloop"
    pack(run, file, sources=True)
    back = unpack(file, tmp_path / "elsewhere")
    video = next((back / "sources").glob("*.mp4"))
    video.write_bytes(CONTENT[:-1])
    (problem,) = check_run(back).problems
    assert str(video) in problem and "do not match its name" in problem
    (tmp_path / "Board.MP4").write_bytes(CONTENT + b"!")
    with pytest.raises(InputError, match="gone or has changed"):
        pack(run, tmp_path / "two.keyeloop", sources=True)
    assert not (tmp_path / "two.keyeloop").exists()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("sources/" + "ab" * 32 + ".mp4", "does not match its name"),
        ("sources/../../x", "no part of a run"),
        (None, "never looked into"),
    ],
)
def test_sources_from_elsewhere_are_not_trusted(run: Path, tmp_path: Path, member: str | None, said: str) -> None:
    file, content = tmp_path / "one.keyeloop", b"something"
    pack(run, file)
    with zipfile.ZipFile(file, "a") as packed:
        packed.writestr(member or f"sources/{hashlib.sha256(content).hexdigest()}.html", content)
    with pytest.raises(InputError, match=said):
        unpack(file, tmp_path / "elsewhere")
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]


def test_a_run_of_which_nothing_is_recorded_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "journal.jsonl").write_text('{"kind": "run_st')
    with pytest.raises(JournalError, match="run the task again"):
        pack(tmp_path / "early", tmp_path / "early.keyeloop")
    check = check_run(tmp_path / "early")
    assert len(check.problems) == 1 and "no whole line is recorded in" in check.problems[0] and not check.torn
