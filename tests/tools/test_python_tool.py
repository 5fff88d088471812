"""The ``python`` tool: what the model reads and sees of its code, and how it hears of endings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.runtime.content import Image, Part, Text
from keyeloop.runtime.errors import ToolError
from keyeloop.sandbox import Limits, SandboxSpec, availability
from keyeloop.sandbox.bwrap_plan import find_bwrap
from keyeloop.tools import Python, ToolContext
from keyeloop.tools.python import MAX_TEXT_CHARS
from keyeloop.tools.video.frames import decoder_of

QUICK = SandboxSpec(limits=Limits(wall_s=2, interrupt_grace_s=0.3, memory_bytes=512 << 20))


class Desk:
    """One run with a python tool, and shorthand for calls."""

    def __init__(self, context: ToolContext) -> None:
        self.context = context
        self.tool = Python(QUICK)

    async def parts(self, code: str) -> tuple[Part, ...]:
        return await self.tool.call({"code": code}, self.context)

    async def text(self, code: str) -> str:
        (part,) = await self.parts(code)
        assert isinstance(part, Text)
        return part.text

    async def error(self, code: str) -> str:
        with pytest.raises(ToolError) as caught:
            await self.parts(code)
        return str(caught.value)


@pytest.fixture
async def desk(context: ToolContext) -> AsyncIterator[Desk]:
    found = availability()
    if not found.ok:
        pytest.skip(f"{found.reason}; {found.remedy}")
    desk = Desk(context)
    yield desk
    await desk.tool.close(context)


def test_what_the_model_is_told_of_it() -> None:
    spec = Python().spec
    assert (spec.name, spec.description) == ("python", "Run Python code in a sandbox; print what you need.")
    assert spec.parameters == {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
    assert Python(QUICK).timeout_s > 2.3 and Python.in_order


@pytest.mark.sandbox
async def test_output_and_last_value_come_as_plain_text(desk: Desk) -> None:
    assert await desk.text("print(417+88)") == "505"
    assert await desk.text("x = 417 + 88\nx") == "505"
    assert await desk.text("print('a')\nx * 2") == "a\n1010"
    assert await desk.text("y = 1") == "no output: print what you need"
    assert await desk.text("import sys\nprint('  in  ')\nprint('careful', file=sys.stderr)") == (
        "  in\nstandard error:\ncareful"
    )
    assert (
        await desk.text("open('/out/table.csv', 'w').write('a,b')\nNone") == "file /out/table.csv: text/plain, 3 bytes"
    )


@pytest.mark.sandbox
async def test_long_output_is_cut_in_its_middle(desk: Desk) -> None:
    text = await desk.text("for i in range(20000): print(i)")
    assert len(text) < MAX_TEXT_CHARS + 100 and text.startswith("0\n1\n") and text.endswith("19999")
    assert "left out" in text


@pytest.mark.sandbox
async def test_errors_are_short_and_name_the_line(desk: Desk) -> None:
    assert await desk.error("a = 1\nprint('before')\nprint(a / 0)") == (
        "ZeroDivisionError: division by zero (line 3: print(a / 0))\nprinted before:\nbefore"
    )
    assert await desk.error("x = (") == "SyntaxError: '(' was never closed (line 1: x = ()"
    assert await desk.error("raise KeyError") == "KeyError (line 1: raise KeyError)"
    assert len(await desk.error("raise ValueError('x' * 100_000)")) < 1500
    assert await desk.text("a") == "1"


@pytest.mark.sandbox
async def test_pictures_come_at_the_models_size_and_within_the_budget(desk: Desk) -> None:
    pytest.importorskip("PIL")
    parts = await desk.parts(
        "from PIL import Image\nprint('two')\ndisplay(Image.new('RGB', (60, 30), (255, 0, 0)))\n"
        "import numpy as np\nnp.full((2000, 1000, 3), 128, np.uint8)"
    )
    text, red, grey = parts
    assert text == Text("two\ndrawn: p1, p2")
    assert isinstance(red, Image) and isinstance(grey, Image)
    assert (red.media.width, red.media.height) == (84, 56) and red.view is not None and red.view.source == "plot-1"
    assert desk.context.media.pixels(red.media)[20, 20].tolist() in ([254, 0, 0], [255, 0, 0])
    assert grey.media.width * grey.media.height // 28**2 <= desk.context.visual_budget_tokens // 2
    many = await desk.parts("for n in range(6): display(Image.new('L', (40, 40)))")
    assert [type(part) for part in many] == [Text, Image, Image, Image, Image]
    assert many[0] == Text("drawn: p3, p4, p5, p6\n2 more pictures left out")
    assert decoder_of(desk.context).pid is not None, "they were decoded in the guarded child"


@pytest.mark.sandbox
async def test_pictures_that_are_none_are_left_out_with_a_reason(desk: Desk) -> None:
    fake = "class P:\n    def __init__(self, data): self.data = data\n    def _repr_png_(self): return self.data\n"
    assert (await desk.text(fake + "P(b'not a picture')")).startswith("picture left out: not a picture")
    header = "struct.pack('>I4sIIBBBBB', 13, b'IHDR', 60000, 60000, 8, 2, 0, 0, 0)"
    bomb = f"import struct\nP(b'\\x89PNG\\r\\n\\x1a\\n' + {header})"
    assert "60000x60000" in await desk.text(bomb)


@pytest.mark.sandbox
async def test_endings_are_told(desk: Desk) -> None:
    await desk.parts("kept = 1")
    desk.tool = Python(QUICK)  # another tool object of the same run sees the same sandbox
    slow = await desk.error("print('on')\nwhile True: pass")
    assert slow == "the code ran longer than 2 s and was stopped; variables are kept\nprinted before:\non"
    assert await desk.error("bytearray(4 << 30)") == "the code ran out of memory (512 MiB); variables are kept"
    gone = await desk.error("print(kept)\nimport os\nos._exit(0)")
    assert gone == (
        "the Python process ended while it ran the code; variables and files of earlier calls are gone\n"
        "printed before:\n1"
    )
    assert "NameError: name 'kept'" in await desk.error("kept")


@pytest.mark.sandbox
async def test_a_restart_between_calls_is_told(context: ToolContext) -> None:
    desk = Desk(context)
    desk.tool = Python(SandboxSpec(limits=Limits(idle_s=0.2)))
    await desk.parts("x = 1")
    await asyncio.sleep(1.6)
    assert await desk.text("print(2)") == "the sandbox was started afresh: earlier variables are gone\n2"
    await desk.tool.close(context)


@pytest.mark.sandbox
async def test_a_cancelled_call_stops_the_code_and_the_next_one_works(desk: Desk) -> None:
    await desk.parts("x = 7")
    task = asyncio.create_task(desk.parts("while True: pass"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started_s = time.monotonic()
    assert await desk.text("x") == "7" and time.monotonic() - started_s < 2


@pytest.mark.sandbox
async def test_a_call_cancelled_while_its_sandbox_opens_runs_nothing(desk: Desk) -> None:
    desk.tool = Python()
    task = asyncio.create_task(desk.parts("import time; time.sleep(25)"))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started_s = time.monotonic()
    await desk.tool.close(desk.context)
    assert time.monotonic() - started_s < 15, "closing waited for the code"


@pytest.mark.sandbox
async def test_runs_do_not_share_and_closing_is_final(desk: Desk, tmp_path: Path) -> None:
    other = ToolContext({}, desk.context.media, desk.context.views, desk.context.cost, visual_budget_tokens=100)
    await desk.parts("secret = 1")
    with pytest.raises(ToolError, match="NameError"):
        await desk.tool.call({"code": "secret"}, other)
    for _ in range(2):
        await desk.tool.close(other)
    assert other.state == {} and await desk.text("secret") == "1"


async def test_without_a_sandbox_it_says_why(
    context: ToolContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo bubblewrap 0.9.0 || echo 'no namespace' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    find_bwrap.cache_clear()
    try:
        tool: Any = Python(engine="bubblewrap")
        found = tool.availability()
        assert not found.ok and "no namespace" in found.reason and "allow user namespaces" in found.remedy
        with pytest.raises(ToolError, match=r"^python is not available here: .*no namespace"):
            await tool.call({"code": "print(1)"}, context)
        await tool.close(context)
    finally:
        find_bwrap.cache_clear()
