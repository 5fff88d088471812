"""Records kept: old formats, several files, damage named, pictures shared, garbage found, one file and back."""

from __future__ import annotations

import json
import resource
import shutil
import zipfile
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from keyeloop.runtime.clock import SystemClock
from keyeloop.runtime.content import Image
from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.events import FORMAT, Noticed, RunEnded, RunStart, ToolReturned, journal_schema
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.journal import Following, Journal, chunks, read_journal, salvage, steady_lines
from keyeloop.runtime.journal.checking import check_run
from keyeloop.runtime.journal.collecting import find_garbage, remove_garbage
from keyeloop.runtime.journal.migration import format_of
from keyeloop.runtime.journal.portable import pack, unpack
from keyeloop.runtime.trajectory import Trajectory, list_runs, summarise
from keyeloop.runtime.wire import parts_to_wire

OLD = Path(__file__).with_name("journal_format_1.jsonl")
ROOT = Path(__file__).resolve().parents[2]


def old_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(OLD, folder / "journal.jsonl")
    return folder


def run_with_pictures(folder: Path, shades: range, ended: bool = True) -> list[Path]:
    """A run that was shown a picture of each shade; where they lie."""
    with Journal.create(folder, SystemClock()) as journal:
        journal.append(RunStart(run_id=folder.name, question="?", model="m"))
        paths = []
        for shade in shades:
            ref = journal.media.put_image(np.full((28, 28, 3), shade, np.uint8))
            view = View(f"f{shade}", "video-1", "ab" * 32, float(shade), Region(0, 0, 56, 56))
            parts = parts_to_wire([Image(ref, view)])
            journal.append(ToolReturned(turn=1, call_id="c", name="n", parts=parts, views=(view,)))
            paths.append(journal.media.path(ref.sha256))
        if ended:
            journal.append(RunEnded(status="answered", answer="4"))
    return paths


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_record_of_the_first_format_reads_and_goes_on(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "old")
    assert format_of(folder) == 1
    events = list(read_journal(folder))
    ends = [event for event in events if isinstance(event, RunEnded)]
    assert [end.so_far.turns for end in ends] == [3, 5] and ends[-1].so_far.tool_calls == 3
    assert isinstance(events[0], RunStart) and events[0].format == FORMAT
    assert summarise(folder).totals == ends[-1].so_far
    before = steady_lines(folder)
    with Journal.reopen(folder, SystemClock()) as journal:
        journal.append(Noticed(turn=6, code="x", text="y"))
    assert format_of(folder) == FORMAT and steady_lines(folder)[:-1] == before
    assert list(read_journal(folder))[:-1] == events
    assert [path.name for path in folder.iterdir()] == ["journal.jsonl"]


def test_a_record_of_a_newer_version_says_so(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "new")
    text = OLD.read_text().replace('"format":1', '"format":99', 1)
    (folder / "journal.jsonl").write_text(text)
    with pytest.raises(JournalError, match="has format 99, and this version reads formats up to 2: update keyeloop"):
        list(read_journal(folder))
    assert "update keyeloop" in summarise(folder).problem or summarise(folder).status == "answered"


def test_the_schema_is_the_one_that_is_published_and_holds_for_records(tmp_path: Path) -> None:
    schema = journal_schema()
    assert json.loads((ROOT / "docs" / "journal.schema.json").read_text()) == schema, "make it anew: journal schema"
    run_with_pictures(tmp_path / "run", range(2))
    Journal.reopen(old_run(tmp_path / "old"), SystemClock()).close()
    validator = jsonschema.validators.validator_for(schema)(schema)
    for name in ("run", "old"):
        for line in (tmp_path / name / "journal.jsonl").read_bytes().splitlines():
            validator.validate(json.loads(line))


def test_a_long_record_is_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2000)
    folder, follow = tmp_path / "run", None
    with Journal.create(folder, SystemClock()) as journal:
        journal.append(RunStart(run_id="r", question="?", model="m"))
        follow = Following(folder)
        assert len(follow.new()) == 1
        for turn in range(40):
            journal.append(Noticed(turn=turn, code="x", text="y" * 200))
    assert len(list(folder.glob("journal*.jsonl"))) > 4
    assert all(path.stat().st_size <= 2000 for path in folder.glob("journal*.jsonl"))
    assert [event.seq for event in follow.new()] == list(range(1, 41)) and follow.new() == []
    with Journal.reopen(folder, SystemClock()) as journal:
        journal.append(RunEnded(status="answered", answer="4"))
    assert [event.seq for event in read_journal(folder)] == list(range(42))
    assert [event.seq for event in follow.new()] == [41]
    assert summarise(folder).events == 42 and summarise(folder).answer == "4"
    (folder / "journal.2.jsonl").unlink()
    assert summarise(folder).status == "in flight", "what lies behind a gap is not read"
    flip(folder / "journal.1.jsonl", 100)
    events, damage = salvage(folder)
    assert "journal.1.jsonl is damaged: line 1 does not match its checksum" in str(damage[0])
    assert events[-1].seq > 10


def test_a_flipped_byte_is_found_wherever_it_is_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_with_pictures(folder, range(6))
    path = folder / "journal.jsonl"
    whole = path.read_bytes()
    lines, sound, found = whole.splitlines(keepends=True), list(read_journal(folder)), 0
    for at in range(len(lines[0]), len(whole) - len(lines[-1]), 97):
        path.write_bytes(whole)
        flip(path, at)
        run = Trajectory.salvage(folder)
        if list(run.events) == sound:
            continue  # it hit the name of the checksum
        found += 1
        with pytest.raises(JournalError, match=r"journal\.jsonl is damaged"):
            list(read_journal(folder))
        assert len(run.events) >= 6 and run.answer == "4"
        assert any("journal.jsonl is damaged: line" in problem for problem in check_run(folder).problems)
    assert found > 10
    path.write_bytes(b"".join([*lines[:3], *lines[5:]]))
    assert any("events 3 to 4 are missing" in problem for problem in check_run(folder).problems)


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    run_with_pictures(tmp_path / "run", range(2))
    path = tmp_path / "run" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    check = check_run(tmp_path / "run")
    assert check.sound and check.torn and check.events == 3
    assert summarise(tmp_path / "run").status == "in flight" and summarise(tmp_path / "run").totals.views == 2


def test_a_missing_or_changed_picture_is_named(tmp_path: Path) -> None:
    one, two, _ = run_with_pictures(tmp_path / "run", range(3))
    flip(one, 200)
    two.unlink()
    problems = check_run(tmp_path / "run").problems
    assert len(problems) == 2 and str(one) in problems[0] and two.name in problems[1]
    assert len(Trajectory.salvage(tmp_path / "run").looks) == 3, "the rest is readable"


def test_a_full_disk_is_named_where_a_picture_does_not_fit(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run", SystemClock())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, limit[1]))
        with pytest.raises(JournalError, match=r"the picture .*/media/.* could not be written: File too large"):
            journal.media.put_image(np.random.default_rng(1).integers(0, 255, (56, 56, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        journal.close()
    assert not [path for path in (tmp_path / "run" / "media").rglob("*") if path.is_file()]


def test_runs_share_their_pictures_and_outlive_each_other(tmp_path: Path) -> None:
    first = run_with_pictures(tmp_path / "one", range(3))
    second = run_with_pictures(tmp_path / "two", range(4))
    assert [path.stat().st_ino for path in first] == [path.stat().st_ino for path in second[:3]]
    assert find_garbage(tmp_path) == []
    shutil.rmtree(tmp_path / "one")
    assert find_garbage(tmp_path) == [] and check_run(tmp_path / "two").sound
    flip(second[0], 100)
    third = run_with_pictures(tmp_path / "three", range(1))
    assert check_run(tmp_path / "three").sound, "a damaged picture is not handed on"
    assert third[0].stat().st_ino != second[0].stat().st_ino
    for name in ("two", "three"):
        shutil.rmtree(tmp_path / name)
    garbage = find_garbage(tmp_path)
    assert len(garbage) == 4 and {one.why for one in garbage} == {"no run holds it"}
    assert remove_garbage(garbage) == sum(one.size_bytes for one in garbage) > 0
    assert list((tmp_path / ".media").rglob("*")) == []


def test_garbage_is_what_no_run_speaks_of(tmp_path: Path) -> None:
    run_with_pictures(tmp_path / "run", range(2))
    busy = Journal.create(tmp_path / "busy", SystemClock())
    busy.append(RunStart(run_id="r", question="?", model="m"))
    for name in ("run", "busy"):
        shade = np.full((28, 28, 3), 99, np.uint8)
        Trajectory.read(tmp_path / name).media.put_image(shade)
    never = tmp_path / "never" / "media" / "ab"
    never.mkdir(parents=True)
    (never / ("ab" * 32)).write_bytes(b"x")
    assert {(one.path.parents[2].name, one.why) for one in find_garbage(tmp_path)} == {
        ("run", "its run does not speak of it")
    }, "neither what is being written nor what may just begin"
    busy.close()
    later = find_garbage(tmp_path, now_s=lambda: 1e11)
    assert {one.path.parents[2].name for one in later} == {"run", "busy", "never", tmp_path.name}
    remove_garbage(later)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["busy", "run"]
    assert check_run(tmp_path / "run").sound and find_garbage(tmp_path, now_s=lambda: 1e11) == []


def test_a_run_goes_into_one_file_and_back(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    run_with_pictures(folder, range(3))
    file = tmp_path / "one.keyeloop"
    assert pack(folder, file) == file.stat().st_size
    back = unpack(file, tmp_path / "elsewhere")
    assert list(read_journal(back)) == list(read_journal(folder)) and check_run(back).sound
    assert pack(back, tmp_path / "again.keyeloop") and file.read_bytes() == (tmp_path / "again.keyeloop").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        unpack(file, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="exists already"):
        pack(folder, file)


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        ("../../evil", b"x", "which is no part of a run"),
        ("media/ab/" + "ab" * 32, b"x", "does not match its name"),
        ("keyeloop-run.json", b'{"name": "../up"}', "no name of a folder"),
        ("journal.jsonl", b"{}\n{}\n", "cannot be unpacked|damaged|whole"),
    ],
)
def test_a_packed_run_from_elsewhere_is_not_trusted(tmp_path: Path, member: str, content: bytes, said: str) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    run_with_pictures(tmp_path / "runs" / "one", range(1))
    pack(tmp_path / "runs" / "one", good)
    with zipfile.ZipFile(good) as read, zipfile.ZipFile(bad, "w") as write:
        for name in read.namelist():
            if name != member:
                write.writestr(name, read.read(name))
        write.writestr(member, content)
    with pytest.raises((InputError, JournalError), match=said):
        unpack(bad, tmp_path / "in" / "runs")
    assert not (tmp_path / "evil").exists() and not list((tmp_path / "in").rglob("*.jsonl"))
    bad.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(bad, tmp_path / "in" / "runs")


def test_a_list_of_runs_tells_each_and_keeps_the_bad_ones(tmp_path: Path) -> None:
    run_with_pictures(tmp_path / "one", range(2))
    run_with_pictures(tmp_path / "two", range(1), ended=False)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "journal.jsonl").write_text('{"seq": 0, "ki')
    (tmp_path / "none").mkdir()
    listed = list_runs(tmp_path)
    assert {run.name: run.status for run in listed} == {"one": "answered", "two": "in flight", "bad": None}
    assert next(run for run in listed if run.name == "bad").problem
    one = next(run for run in listed if run.name == "one")
    assert (one.totals.views, one.events, one.answer) == (2, 4, "4")
    assert list_runs(tmp_path / "one") == [summarise(tmp_path / "one")] and list_runs(tmp_path / "nowhere") == []
