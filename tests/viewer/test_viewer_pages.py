"""The viewer's pages over real records: what is in them, and that each piece can be had."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from keyeloop.runtime.trajectory import Trajectory
from tests.viewer.recorded import EVIL, VIDEO


async def page(viewer: httpx.AsyncClient, path: str, status: int = 200) -> str:
    answer = await viewer.get(path)
    assert answer.status_code == status, answer.text[:300]
    return answer.text


def rows(text: str) -> list[str]:
    return re.findall(r'<a class="asked" href="/run/([^"]+)"', text)


async def test_the_list_tells_of_every_run(viewer: httpx.AsyncClient) -> None:
    text = await page(viewer, "/")
    assert sorted(rows(text)) == ["cut", "deeper/evil", "looking", "twin"]
    assert "<b>4</b> runs" in text and "<b>3</b> answered" in text and "cut off" in text
    assert "It is written there and." in text, "the answer stands without its citations"
    assert "board.mp4" in text and 'value="scripted"' in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=answered", {"deeper/evil", "looking", "twin"}),
        ("status=in+flight", {"cut"}),
        ("source=board.mp4", {"looking", "twin"}),
        ("q=WRITTEN+board", {"looking", "twin"}),
        ("q=nothing", {"twin"}),
        ("q=noted%3A+what+is", set()),
        ("q=noted%3A+what+is&deep=1", {"looking", "twin"}),
        ("q=total_tokens&deep=1", set()),
        ("status=failed", set()),
        ("model=scripted&order=tokens&page=99", {"cut", "deeper/evil", "looking", "twin"}),
        ("page=%00&order=%3Cb%3E&status=", {"cut", "deeper/evil", "looking", "twin"}),
    ],
)
async def test_the_list_is_filtered(viewer: httpx.AsyncClient, query: str, found: set[str]) -> None:
    assert set(rows(await page(viewer, f"/?{query}"))) == found
    assert set(rows(await page(viewer, f"/rows?{query}"))) == found


async def test_rows_are_ordered(viewer: httpx.AsyncClient) -> None:
    assert rows(await page(viewer, "/?order=steps"))[-1] == "cut"
    assert rows(await page(viewer, "/"))[-1] == "looking", "the newest stand first"


async def test_a_run_shows_what_was_thought_done_given_and_cited(viewer: httpx.AsyncClient, store: Path) -> None:
    text = await page(viewer, "/run/looking")
    run = Trajectory.read(store / "looking")
    assert "What is written on the board?</h1>" in text
    assert "I look at the beginning." in text and "noted: what is\nwritten" in text
    assert '<span class="arg">max_frames</span>=3' in text
    handles = re.findall(r'class="mark (\w+)".*?data-handle="(\w+)"', text)
    assert handles == [("look", "f1"), ("look", "f2"), ("look", "f3"), ("crop", "z1")]
    box = run.citations[0].region
    assert box is not None
    sides = f"{box.x0},{box.y0},{box.x1},{box.y1}"
    assert f'data-kind="cite" data-source="video-1" data-time="5.0" data-box="{sides}" data-handle="z1"' in text
    for look in run.looks:
        assert f"/run/looking/-/media/{look.media.sha256}" in text
    for step in run.steps:
        assert step.reply is not None
        assert f'id="step-{step.turn}"' in text and f"{step.reply.usage.input_tokens:,} in" in text


async def test_pictures_come_whole_and_small(viewer: httpx.AsyncClient, store: Path) -> None:
    run = Trajectory.read(store / "looking")
    wide = max((look.media for look in run.looks), key=lambda media: media.width)
    url = f"/run/looking/-/media/{wide.sha256}"
    whole, small = await viewer.get(url), await viewer.get(url + "?w=320")
    assert whole.content == run.media.read(wide.sha256) and whole.headers["content-type"] == "image/jpeg"
    assert "immutable" in whole.headers["cache-control"]
    assert small.content[:2] == b"\xff\xd8" and len(small.content) < len(whole.content)
    elsewhere = Trajectory.read(store / "cut")
    assert not elsewhere.looks
    await page(viewer, f"/run/cut/-/media/{wide.sha256}", 404)


async def test_the_source_comes_in_pieces(viewer: httpx.AsyncClient) -> None:
    answer = await viewer.get("/run/looking/-/source/video-1", headers={"range": "bytes=100-199"})
    assert answer.status_code == 206 and answer.content == VIDEO.read_bytes()[100:200]
    assert answer.headers["content-type"] == "video/mp4"
    await page(viewer, "/run/looking/-/source/video-2", 404)


async def test_steps_events_and_words_are_found(viewer: httpx.AsyncClient) -> None:
    assert re.findall(r'id="step-(\d+)"', await page(viewer, "/run/looking/-/steps?first=1")) == ["2", "3"]
    assert re.findall(r'id="step-(\d+)"', await page(viewer, "/run/looking/-/steps?first=1&count=1")) == ["2"]
    event = json.loads(await page(viewer, "/run/looking/-/event/0"))
    assert event["kind"] == "run_start" and event["question"] == "What is written on the board?"
    await page(viewer, "/run/looking/-/event/999", 404)
    found = await page(viewer, "/run/looking/-/search?q=WRITTEN")
    assert found.count("<li>") == 3 and "<mark>written</mark>" in found, "in the call, its result and the answer"
    assert "<b>0</b> places" in await page(viewer, "/run/looking/-/search?q=absent")


async def test_two_runs_part_where_they_do(viewer: httpx.AsyncClient) -> None:
    text = await page(viewer, "/compare?run=looking&run=twin")
    assert "They part in step 3: reply" in text and text.count('class="row first"') == 1
    assert (
        "<del>It is written there [z1 100,100,500,500] and [f3].</del>" in text and "<ins>Nothing [f3].</ins>" in text
    )
    assert "Step 1 is the same" in text and "Step 2 is the same" in text and "Step 3 is the same" not in text
    assert "The same from beginning to end" in await page(viewer, "/compare?run=looking&run=looking")
    await page(viewer, "/compare?run=looking", 404)
    await page(viewer, "/compare?run=looking&run=nothing", 404)


async def test_every_text_of_a_run_is_escaped(viewer: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/run/deeper/evil",
        "/run/deeper/evil/-/search?q=window",
        "/compare?run=deeper/evil&run=looking",
        f"/?q={EVIL}",
        f"/run/{EVIL}",
    ):
        text = (await viewer.get(path)).text
        assert "&lt;script&gt;" in text or "&amp;lt;" in text, path
        assert "<script>window" not in text and "<img src=x" not in text and "<svg onload" not in text, path
        assert "{{7*7}}" in text, path


async def test_the_tail_tells_only_news(viewer: httpx.AsyncClient, store: Path) -> None:
    last = len(Trajectory.read(store / "looking").events) - 1
    assert (await viewer.get(f"/run/looking/-/tail?after={last}&running=0")).status_code == 204
    news = (await viewer.get("/run/looking/-/tail?after=5&running=0")).json()
    assert news["seq"] == last and news["ended"] and not news["running"]
    assert "What is written" in news["head"] and "mark look" in news["strips"] and 'id="step-3"' in news["steps"]
    unmoved = (await viewer.get("/run/cut/-/tail?after=0&running=1")).json()
    assert unmoved["head"] and unmoved["strips"] is None, "no picture and no citation has come"
