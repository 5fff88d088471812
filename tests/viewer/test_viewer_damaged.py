"""Records that are torn, changed or without their pictures: named on the page, the rest readable."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from keyeloop.agent.viewer.app import build_app
from keyeloop.runtime.journal import JOURNAL, MEDIA, SHARED_MEDIA
from tests.viewer.conftest import PORT, URL


@pytest.fixture
def copied(store: Path, tmp_path: Path) -> Path:
    """A folder of runs with a copy of one."""
    shutil.copytree(store / "looking", tmp_path / "runs" / "looking")
    return tmp_path / "runs"


async def seen(runs: Path, path: str) -> tuple[int, str]:
    transport = httpx.ASGITransport(build_app(runs, PORT))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        answer = await client.get(path)
        return answer.status_code, answer.text


async def test_a_torn_tail_is_told(copied: Path) -> None:
    journal = copied / "looking" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-40])
    status, text = await seen(copied, "/run/looking")
    assert status == 200 and 'class="damage"' in text and "is cut off" in text
    assert "noted: what is\nwritten" in text and ">cut off<" in text


async def test_a_changed_byte_is_told_and_the_rest_is_shown(copied: Path) -> None:
    journal = copied / "looking" / JOURNAL
    lines = journal.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"beginning", b"beginninG")
    journal.write_bytes(b"\n".join(lines))
    status, text = await seen(copied, "/run/looking")
    assert status == 200 and "line 3 does not match its checksum" in text
    assert "noted: what is\nwritten" in text and "I look at the beginninG" not in text


async def test_a_run_without_its_first_line_is_listed_and_says_why(copied: Path) -> None:
    journal = copied / "looking" / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(b"{}\n" + whole)
    status, text = await seen(copied, "/run/looking")
    assert status == 200 and "is damaged: line 1 " in text and "noted: what is\nwritten" in text
    journal.write_bytes(whole.split(b"\n", 1)[1])
    status, text = await seen(copied, "/")
    assert status == 200 and "unreadable" in text and "run_start" in text
    status, text = await seen(copied, "/run/looking")
    assert status == 500 and "This run cannot be read" in text


async def test_a_missing_picture_is_one_answer_and_no_more(copied: Path) -> None:
    shutil.rmtree(copied / "looking" / MEDIA)
    assert not (copied / SHARED_MEDIA).exists()
    status, text = await seen(copied, "/run/looking")
    assert status == 200
    url = text.split('src="/run/looking/-/media/')[1].split('"')[0]
    status, text = await seen(copied, f"/run/looking/-/media/{url}")
    assert status == 500 and "no media" in text


async def test_a_record_of_nothing_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / JOURNAL).write_bytes(b"")
    status, text = await seen(tmp_path, "/")
    assert status == 200 and "unreadable" in text
    assert (await seen(tmp_path, "/run/empty"))[0] == 500
