"""Citations: the grammar, the addresses they resolve to, and honesty about what was not looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.runtime.citations import format_time, parse_citations, resolve, strip_citations
from keyeloop.runtime.evidence import Region, Source
from keyeloop.runtime.moments import parse_time
from keyeloop.runtime.views import ViewBook

SHA = "ab" * 32
VIDEO = Source("video-1", "video", SHA, "/v.mp4", 1280, 720, 100.0)
IMAGE = Source("image-1", "image", SHA, "/i.png", 640, 480)


def looked() -> ViewBook:
    book = ViewBook()
    book.frame("video-1", SHA, 83.0, Region(0, 0, 1280, 720))
    frame = book.frame("video-1", SHA, 84.0, Region(0, 0, 1280, 720))
    book.crop(frame, Region(320, 180, 960, 540))
    return book


@pytest.mark.parametrize(
    "text,handle,source,time_s,box",
    [
        ("[f1]", "f1", None, None, None),
        ("[F1]", "f1", None, None, None),
        ("[f12 at 83.0 s]", "f12", None, None, None),
        ("[f12 83.0s]", "f12", None, None, None),
        ("[f1 310,200,640,460]", "f1", None, None, (310, 200, 640, 460)),
        ("[z1 310, 200, 640.5, 460]", "z1", None, None, (310, 200, 640.5, 460)),
        ("[video-1 83.0s]", None, "video-1", 83.0, None),
        ("[video-1 83 s 310,200,640,460]", None, "video-1", 83.0, (310, 200, 640, 460)),
        ("[video-1 1:23.5]", None, "video-1", 83.5, None),
        ("[video-1 at 83.0s]", None, "video-1", 83.0, None),
        ("[video-1, 1:23.5 1,2,3,4]", None, "video-1", 83.5, (1, 2, 3, 4)),
        ("[1:23.5]", None, None, 83.5, None),
        ("[1:02:03]", None, None, 3723.0, None),
        ("[83.0s 1,2,3,4]", None, None, 83.0, (1, 2, 3, 4)),
        ("[image-1]", None, "image-1", None, None),
        ("[image-1 1,2,3,4]", None, "image-1", None, (1, 2, 3, 4)),
        ("[plan 1,2,3,4]", None, "plan", None, (1, 2, 3, 4)),
    ],
)
def test_grammar(
    text: str,
    handle: str | None,
    source: str | None,
    time_s: float | None,
    box: tuple[float, ...] | None,
) -> None:
    (found,) = parse_citations(f"So {text}.")
    assert (found.text, found.handle, found.source, found.time_s, found.box) == (text, handle, source, time_s, box)
    assert (found.start, found.end) == (3, 3 + len(text))


@pytest.mark.parametrize("text", ["[1]", "[note]", "[sic]", "a[f1x]", "[83]", "[f1 1,2,3]", "[]", "[f1\n]", "[f1; so]"])
def test_other_brackets_are_left_alone(text: str) -> None:
    assert parse_citations(text) == []
    assert strip_citations(text) == text


def test_several_in_one_pair_of_brackets() -> None:
    assert [found.handle for found in parse_citations("417 [f1; f3 1,2,3,4] and [z2]")] == ["f1", "f3", "z2"]
    first, second, third = parse_citations("417 [f1 1,2,3,4, z2] [f3, f4]")[:3]
    assert (first.handle, first.box, second.handle, third.handle) == ("f1", (1, 2, 3, 4), "z2", "f3")
    assert strip_citations("417 [f1, f2]") == "417" and parse_citations("[f1, as said]") == []


@pytest.mark.parametrize(
    ("text", "handles"),
    [
        ("[f1-f4]", "f1 f2 f3 f4"),
        ("[f1–f3]", "f1 f2 f3"),
        ("[f2 - 3]", "f2 f3"),
        ("[f1..f2, z1]", "f1 f2 z1"),
        ("[z1 to z2; f9]", "z1 z2 f9"),
        ("[F1-F2]", "f1 f2"),
        ("[f7-f7]", "f7"),
    ],
)
def test_a_range_is_every_view_of_it(text: str, handles: str) -> None:
    found = parse_citations(f"417 {text}")
    assert [each.handle for each in found] == handles.split()
    assert strip_citations(f"417 {text}") == "417"
    assert found[0].text in (f"[{found[0].handle}]", text)


def test_a_range_with_a_box_cites_it_in_every_view() -> None:
    assert [each.box for each in parse_citations("[f1-f2 1,2,3,4]")] == [(1, 2, 3, 4)] * 2
    known, unknown = resolve("[f2-f3]", looked(), [VIDEO])
    assert (known.seen, known.text, unknown.seen, unknown.text) == (True, "[f2]", False, "[f3]")


@pytest.mark.parametrize("text", ["[f4-f1]", "[f1-z2]", "[f1-f999]", "[f1-]", "[f1-f4-f6]"])
def test_what_is_no_range_is_left_alone(text: str) -> None:
    assert parse_citations(text) == [] and strip_citations(text) == text


@pytest.mark.parametrize(
    "text,plain",
    [("417 [f1 310,200,640,460]", "417"), ("It says 417 [f1], then 5 [1:24].", "It says 417, then 5."), ("[f1]", "")],
)
def test_stripping(text: str, plain: str) -> None:
    assert strip_citations(text) == plain


def test_a_box_becomes_source_pixels() -> None:
    (citation,) = resolve("417 [f1 250,500,500,1000]", looked(), [VIDEO])
    assert citation.seen and (citation.source, citation.time_s, citation.handle) == ("video-1", 83.0, "f1")
    assert citation.region == Region(320, 360, 640, 720)


def test_a_box_of_a_crop_composes_back_to_the_source() -> None:
    whole, part = resolve("[z1] [z1 0,0,500,500]", looked(), [VIDEO])
    assert whole.region == Region(320, 180, 960, 540) and whole.time_s == 84.0
    assert part.region == Region(320, 180, 640, 360)


def test_a_whole_frame_has_no_box() -> None:
    (citation,) = resolve("[f2]", looked(), [VIDEO])
    assert citation.region is None and citation.seen


@pytest.mark.parametrize(
    "text,seen",
    [
        ("[video-1 83.3s]", True),
        ("[video-1 0:01:24.5]", True),
        ("[1:23]", True),
        ("[1:20]", False),
        ("[video-1 50.0s 1,1,9,9]", False),
        ("[video-2 83.0s]", False),
        ("[f9]", False),
        ("[f1 640,1,310,2]", False),
        ("[f1 1,1,2,1001]", False),
        ("[video-1 83.0s 9,9,1,1]", False),
    ],
)
def test_what_was_never_looked_at_is_marked(text: str, seen: bool) -> None:
    (citation,) = resolve(text, looked(), [VIDEO])
    assert citation.seen is seen and citation.text == text


def test_a_bare_time_needs_a_single_source() -> None:
    (citation,) = resolve("[1:23]", looked(), [VIDEO, IMAGE])
    assert not citation.seen and citation.source == "" and citation.time_s == 83.0


def test_an_image_has_no_time() -> None:
    book = looked()
    (unseen,) = resolve("[image-1 0,0,500,500]", book, [VIDEO, IMAGE])
    book.frame("image-1", SHA, None, Region(0, 0, 640, 480))
    (seen,) = resolve("[image-1 0,0,500,500]", book, [VIDEO, IMAGE])
    assert (unseen.seen, seen.seen) == (False, True)
    assert seen.time_s is None and seen.region == Region(0, 0, 320, 240)


@pytest.mark.parametrize(
    "seconds,text",
    [
        (0, "0:00:00.000"),
        (83.5, "0:01:23.500"),
        (59.9996, "0:01:00.000"),
        (36000.04, "10:00:00.040"),
        (-1, "-0:00:01.000"),
    ],
)
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@given(st.integers(0, 10**9))
def test_times_read_back(thousandths: int) -> None:
    assert parse_time(format_time(thousandths / 1000)) == pytest.approx(thousandths / 1000, abs=1e-6)


@given(st.text(alphabet="[]f1z video-s:.,;09 ", max_size=60))
def test_any_text_is_read_without_harm(text: str) -> None:
    assert len(resolve(text, looked(), [VIDEO])) == len(parse_citations(text))
    assert len(strip_citations(text)) <= len(text)
