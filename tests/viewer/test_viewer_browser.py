"""The viewer in a real browser, on runs of the embedded model: list, looks, source, search, tail, two runs, a file."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.viewer.export import export_run
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Message
from keyeloop.runtime.trajectory import Trajectory
from tests.viewer.browsing import PHONE, browser_path, chromium, grave_faults, opened, served
from tests.viewer.recorded import LOOKING, VIDEO, note, record, record_evil

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``zoomed`` and ``summed`` are the embedded model's own; ``left``, ``right``, ``gone``, ``long``, ``evil``."""
    browser_path()
    root = tmp_path_factory.mktemp("browser") / "runs"
    agent = Agent("keye-tiny", runs=root)
    for name, family in (("zoomed", "read_small"), ("summed", "compute")):
        rows = json.loads(VIDEO.with_suffix(".json").read_text())
        question = next(row["question"] for row in rows if row["family"] == family)
        Path(agent.run_sync(question, video=VIDEO).run).rename(root / name)
    elsewhere = Message("assistant", tool_calls=call("clip_video", video="video-1", start_s=30, end_s=36).tool_calls)
    record(root, "left or right?", [LOOKING[0], "Left."]).rename(root / "left")
    record(root, "left or right?", [elsewhere, "Right."]).rename(root / "right")
    copy = root.parent / "copy.mp4"
    shutil.copy(VIDEO, copy)
    record(root, "where is it?", video=copy).rename(root / "gone")
    copy.unlink()
    steps: list[Script] = [call("note", text=f"number {count}") for count in range(119)]
    long = Agent(ScriptedBackend([*steps, "done"]), [note], runs=root, limits=Limits(None, None))
    Path(long.run_sync("count").run).rename(root / "long")
    record_evil(root).rename(root / "evil")
    return root


@pytest.fixture(scope="module")
def browser(runs: Path) -> Iterator[Any]:
    """Behind ``runs``: with it an event loop runs."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    with served(runs) as address:
        yield address


def wait(page: Any, condition: str) -> None:
    """Until ``condition`` holds; playwright's own wait needs the ``eval`` that the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came: {condition}")


def test_the_list_is_filtered_and_opens_a_run(browser: Any, url: str, runs: Path) -> None:
    with opened(browser) as page:
        page.goto(url)
        assert page.locator("a.asked").count() == 7
        page.fill("#search", "sum")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=sum*")
        assert page.locator("a.asked").count() == 1 and "1 run" in page.locator(".totals").inner_text()
        page.locator("a.asked").click()
        page.wait_for_url("**/run/summed")
        assert page.locator("h1").inner_text() == Trajectory.read(runs / "summed").question
        page.goto(url)
        page.select_option("select[name=source]", "copy.mp4")
        page.wait_for_url("**source=copy.mp4*")
        assert page.locator("a.asked").count() == 1


def test_a_look_plays_the_source_at_its_second_with_its_box(browser: Any, url: str, runs: Path) -> None:
    run = Trajectory.read(runs / "zoomed")
    crop = next(look for look in run.looks if look.view.parent)
    with opened(browser) as page:
        page.goto(f"{url}run/zoomed")
        page.locator(f'.mark[data-handle="{crop.view.handle}"]').click()
        wait(page, f"(v => v.currentTime > {crop.time_s} && v.readyState > 2)(document.querySelector('video'))")
        assert page.evaluate("document.querySelector('video').currentTime") <= (crop.time_s or 0) + 3.5
        video, edge = (page.locator(at).bounding_box() for at in (".screen video", ".box .edge"))
        scale = video["width"] / run.start.inputs[0].width
        assert edge["x"] - video["x"] == pytest.approx(crop.region.x0 * scale, abs=3)
        assert edge["y"] - video["y"] == pytest.approx(crop.region.y0 * scale, abs=3)
        assert edge["width"] == pytest.approx(crop.region.width * scale, abs=6)
        wait(
            page,
            f"document.querySelector('video').paused && document.querySelector('video').currentTime > {crop.time_s}",
        )
        assert crop.view.handle in page.locator(".told").inner_text()
        wait(page, "document.querySelector('.seen img').naturalWidth > 0")
        assert page.locator(f".frame.on[data-handle={crop.view.handle}]").count() == 1
        assert page.locator(".playhead").get_attribute("visibility") == "visible"


def test_a_citation_jumps_too(browser: Any, url: str, runs: Path) -> None:
    citation = Trajectory.read(runs / "summed").citations[-1]
    with opened(browser) as page:
        page.goto(f"{url}run/summed")
        page.locator(".answer .cite").last.click()
        wait(page, f"document.querySelector('video').currentTime >= {citation.time_s}")
        assert citation.region is not None
        assert float(page.locator(".box .edge").get_attribute("x")) == pytest.approx(citation.region.x0)


def test_where_the_source_is_gone_the_recorded_frame_stands(browser: Any, url: str) -> None:
    with opened(browser) as page:
        page.goto(f"{url}run/gone")
        page.locator('.mark[data-handle="z1"]').click()
        wait(page, "document.querySelector('.screen .source').naturalWidth > 0")
        assert "not here" in page.locator(".told").inner_text() and page.locator(".screen video").is_hidden()


def test_words_are_found_and_steps_come_when_they_are_wanted(browser: Any, url: str) -> None:
    with opened(browser) as page:
        page.goto(f"{url}run/long")
        assert page.locator(".step").count() < 100, "not all of a long run comes at once"
        page.fill("#search", "number 117")
        page.keyboard.press("Enter")
        page.locator("#found a").first.click()
        wait(page, "document.activeElement.id === 'step-118'")
        assert page.locator("#step-118").is_visible()
        page.keyboard.press("Escape")
        assert page.locator("#found").is_hidden()


def test_the_tail_grows_while_a_run_goes_on(browser: Any, url: str, runs: Path) -> None:
    go = threading.Event()

    async def held(request: Request) -> Message:
        while not go.is_set():
            await asyncio.sleep(0.02)
        return call("note", text="written later")

    agent = Agent(ScriptedBackend([call("note", text="at once"), held, "It is over."]), [note], runs=runs)
    before = set(runs.iterdir())
    going = threading.Thread(target=lambda: agent.run_sync("what comes next?"))
    going.start()
    try:
        with opened(browser) as page:
            page.goto(url)
            page.get_by_text("what comes next?").wait_for()
            page.locator(".pill", has_text="running").wait_for()
            page.get_by_text("what comes next?").click()
            page.locator("#waiting", has_text="waiting").wait_for()
            page.get_by_text("noted: at once").wait_for()
            assert page.locator(".step .result").count() == 1
            go.set()
            page.get_by_text("noted: written later").wait_for()
            page.locator(".head .answer", has_text="It is over.").wait_for()
            page.locator(".head .pill", has_text="answered").wait_for()
            assert page.locator(".step").count() == 3
    finally:
        go.set()
        going.join(20)
        for folder in set(runs.iterdir()) - before:
            shutil.rmtree(folder)


def test_the_first_difference_of_two_runs_is_marked_with_its_frames(browser: Any, url: str) -> None:
    with opened(browser) as page:
        page.goto(url)
        for name in ("left", "right"):
            assert page.locator("button.compare").is_disabled()
            page.check(f'input[value="{name}"]')
        page.click("button.compare")
        page.wait_for_url("**/compare?*")
        assert "They part in step 1: thinking" in page.locator(".verdict").inner_text()
        assert "clip_video" in page.locator("#first .pair").inner_text()
        frames = page.locator("#first .frames")
        assert frames.count() >= 2
        frames.first.scroll_into_view_if_needed()
        wait(page, "[...document.querySelectorAll('#first .frames img')].slice(0, 4).every(at => at.naturalWidth > 0)")
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.blend img + img')).mixBlendMode") == "difference"
        )


def test_keys_alone_do_everything(browser: Any, url: str, runs: Path) -> None:
    looks = Trajectory.read(runs / "zoomed").looks
    with opened(browser, color_scheme="light") as page:
        page.goto(url)
        page.keyboard.press("/")
        page.keyboard.type("sign")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=sign*")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/run/zoomed")
        page.keyboard.press("j")
        wait(page, "document.activeElement.id === 'step-1'")
        page.keyboard.press("j")
        wait(page, "document.activeElement.id === 'step-2'")
        page.keyboard.press("k")
        wait(page, "document.activeElement.id === 'step-1'")
        page.keyboard.press("]")
        wait(page, f"document.activeElement.dataset.handle === '{looks[0].view.handle}'")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        wait(page, f"document.querySelector('.told').textContent.startsWith('{looks[1].view.handle} ')")
        wait(page, f"document.querySelector('video').currentTime >= {looks[1].time_s}")
        page.keyboard.press("t")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.keyboard.press("Escape")
        assert page.locator("#help").is_hidden()
        page.goto(url)
        assert page.evaluate("document.documentElement.dataset.theme") == "dark", "the choice is kept"
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('a.asked')"):
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, url: str, runs: Path, tmp_path: Path, scheme: str) -> None:
    export_run(runs / "zoomed", tmp_path / "run.html")
    with opened(browser, color_scheme=scheme) as page:
        for path in ("", "run/zoomed", "run/long", "compare?run=left&run=right", "?q=nothing+at+all"):
            page.goto(url + path)
            if path == "run/zoomed":
                page.locator(".mark.crop").first.click()
                page.locator(".opening summary").click()
            assert grave_faults(page) == [], path
        page.goto((tmp_path / "run.html").as_uri())
        assert grave_faults(page) == []
    with opened(browser, color_scheme=scheme, viewport=PHONE) as page:
        page.goto(f"{url}run/summed")
        assert grave_faults(page) == []


def test_it_fits_on_a_phone(browser: Any, url: str) -> None:
    with opened(browser, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        for path in ("", "run/summed", "run/evil", "compare?run=left&run=right"):
            page.goto(url + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        page.goto(f"{url}run/summed")
        page.locator(".frame").first.tap()
        wait(page, "document.querySelector('video').currentTime > 0")
        assert page.locator(".screen video").bounding_box()["width"] <= PHONE["width"]


def test_attacks_stay_words(browser: Any, url: str, runs: Path, tmp_path: Path) -> None:
    export_run(runs / "evil", tmp_path / "evil.html")
    with opened(browser) as page:
        paths = ("", "run/evil", "run/evil/-/search?q=window", "compare?run=evil&run=left")
        for address in (*(url + path for path in paths), (tmp_path / "evil.html").as_uri()):
            page.goto(address)
            page.wait_for_timeout(150)
            assert page.evaluate("window.hit") is None, address
            assert (
                page.evaluate("document.querySelectorAll('[onerror], [onload], main script:not([type])').length") == 0
            )
        page.goto(f"{url}run/evil")
        page.fill("#search", "<script>")
        page.keyboard.press("Enter")
        page.locator("#found a").first.wait_for()
        assert page.evaluate("window.hit") is None and page.locator("#found script").count() == 0


def test_an_exported_page_works_without_a_network(browser: Any, runs: Path, tmp_path: Path) -> None:
    export_run(runs / "zoomed", tmp_path / "run.html")
    crop = next(look for look in Trajectory.read(runs / "zoomed").looks if look.view.parent)
    asked: list[str] = []
    with opened(browser, offline=True) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "run.html").as_uri())
        page.locator(".mark.crop").first.click()
        wait(page, f"document.querySelector('video').currentTime >= {crop.time_s}")
        wait(page, "[...document.querySelectorAll('main img:not([hidden])')].every(at => at.src.startsWith('data:'))")
        page.keyboard.press("j")
        wait(page, "document.activeElement.id === 'step-1'")
    assert [request for request in asked if not request.startswith(("file:", "data:"))] == []
