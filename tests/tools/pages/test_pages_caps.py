"""Pages that are too large, too slow or too costly to read end at their cap, and the next one is read."""

from __future__ import annotations

import gzip
import itertools
import random
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest

from keyeloop.runtime.errors import ToolError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.pages.fetching import Caps
from keyeloop.tools.pages.reading import Kind, PageReader
from keyeloop.tools.pages.tool import OpenPage
from tests.tools.pages.conftest import opened, said
from tests.tools.pages_site import Asked, Reply, Site
from tests.tools.pdf_file import pdf_of


def packed(piece: bytes, count: int) -> Iterator[bytes]:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(count):
        yield squeeze.compress(piece)
    yield squeeze.flush()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": "gzip"}, b"".join(packed(bytes(1 << 20), 400))),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"a" * 900_000) * 4),
        ({"Content-Encoding": "deflate"}, zlib.compress(bytes(50_000_000))),
        ({"Content-Encoding": "deflate"}, zlib.compress(bytes(5_000_000))[2:-4]),
        ({}, None),
        ({"Content-Length": "99999999999"}, None),
    ],
)
async def test_bombs_end_at_the_cap(
    headers: dict[str, str], body: bytes | None, site: Site, context: ToolContext
) -> None:
    def endless(_: Asked) -> Reply:
        return Reply(itertools.repeat(b"more and more " * 1000), headers={"Content-Type": "text/plain", **headers})

    site.routes["/bomb"] = endless if body is None else Reply(body, headers={"Content-Type": "text/plain", **headers})
    tool, began_s = OpenPage([site.host], caps=Caps(max_bytes=2_000_000)), time.process_time()
    with pytest.raises(ToolError, match="is larger than 2 MB, unpacked: it was stopped there"):
        await opened(site, "/bomb", context, tool)
    assert time.process_time() - began_s < 2


async def test_what_trickles_is_stopped_in_time(site: Site, context: ToolContext) -> None:
    def drops() -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b"."

    site.routes["/slow"] = lambda _: Reply(drops(), headers={"Content-Type": "text/plain"})
    with pytest.raises(ToolError, match=r"took longer than 0\.4 s and was stopped"):
        await opened(site, "/slow", context, OpenPage([site.host], caps=Caps(seconds=0.4)))


async def test_a_pdf_that_unpacks_without_end_is_stopped(site: Site, context: ToolContext) -> None:
    bomb = zlib.compress(zlib.compress(bytes(120_000_000), 9), 9)
    site.page(
        "/bomb.pdf", pdf_of(["x", "after"], stream=bomb, filters="[/FlateDecode /FlateDecode]"), "application/pdf"
    )
    text = said(await opened(site, "/bomb.pdf", context))
    assert "this page cannot be read" in text and "[page 2]\nafter" in text
    many = pdf_of(["word " * 100] * 300)
    with PageReader() as reader:
        document = reader.read("pdf", many, max_chars=20_000)
    assert document.pages == 300 and "of its 300 pages" in document.left_out and len(document.text) <= 20_000


def test_a_page_that_costs_too_much_is_given_up_and_the_next_is_read() -> None:
    with PageReader(cpu_s=1.0, wall_s=20) as reader:
        for bomb in (b"<div>" * 300_000 + b"x", b"<table><tr><td>" * 30_000, b"<a href='#'><b>" * 100_000):
            try:
                reader.read("html", bomb)
            except Unusable as error:
                assert "stopped" in str(error) or "needs more" in str(error) or "cannot be read" in str(error)
            assert reader.read("text", b"still here").text == "still here"
        with pytest.raises(Unusable, match="more nesting"):
            reader.read("json", b"[" * 500_000)
        assert reader.filtered


def test_mangled_pages_never_end_the_reader() -> None:
    """Bytes changed at random in pages of every kind, under encodings that exist and others: read, or refused."""
    draw = random.Random(7)
    link = (
        b"<base href='/b/'><meta property=og:image content='http://[bad'><img srcset='a 1x'><a href='http://[x'>l</a>"
    )
    whole: dict[Kind, bytes] = {
        "html": b"<html><head><title>x</title>" + link + b"<article><h1>Lamp</h1>" + b"<p>212 steps. " * 40,
        "pdf": pdf_of(["hello"] * 3, "title"),
        "text": "Zürich 日本 ".encode() * 20,
        "json": b'{"a": [1, 2, {"b": "c"}]}',
    }
    labels = ("", "utf-8", "latin-1", "zlib", "rot13", "idna", "undefined", "unicode_escape", "utf-16")
    read, children = 0, set[int | None]()
    with PageReader() as reader:
        for _ in range(120):
            kind = draw.choice(list(whole))
            body = bytearray(whole[kind])
            for _ in range(draw.randint(0, 12)):
                at = draw.randrange(len(body))
                body[at : at + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
            with suppress(Unusable):
                reader.read(kind, bytes(body), charset=draw.choice(labels), url=draw.choice(("", "https://e.org/")))
                read += 1
            children.add(reader.pid)
    assert read > 60 and len(children) == 1 and None not in children
