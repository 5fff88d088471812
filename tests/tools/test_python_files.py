"""Between a run and its code: inputs and shown pictures in, drawn pictures out with an address."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from keyeloop.runtime.citations import resolve
from keyeloop.runtime.content import Image, Text
from keyeloop.runtime.errors import SandboxUnavailable, ToolError
from keyeloop.runtime.evidence import Region, Source
from keyeloop.runtime.picture import encode_picture
from keyeloop.sandbox import Limits, Mount, Sandbox, SandboxPool, SandboxSpec, availability, open_sandbox
from keyeloop.sandbox.fake import FakeSandbox
from keyeloop.tools import Python, ToolContext
from keyeloop.tools.python_seat import SENT_BYTES
from keyeloop.tools.video.zoom import Zoom

QUICK = SandboxSpec(limits=Limits(wall_s=5, interrupt_grace_s=0.3))


@pytest.fixture
async def tool(context: ToolContext) -> AsyncIterator[Python]:
    found = availability()
    if not found.ok:
        pytest.skip(f"{found.reason}; {found.remedy}")
    tool = Python(QUICK)
    yield tool
    await tool.close(context)


def declare(context: ToolContext, path: Path, name: str = "image-1") -> Source:
    source = Source(name, "image", hashlib.sha256(path.read_bytes()).hexdigest(), str(path), 40, 30)
    context.inputs = {**context.inputs, name: source}
    return source


def show(context: ToolContext, value: int) -> str:
    """Put a grey picture before the model; its handle."""
    media = context.media.put_image(np.full((28, 28, 3), value, np.uint8))
    view = context.views.frame("image-1", "0" * 64, None, Region(0, 0, 40, 30))
    context.remember([Image(media, view)])
    return view.handle


@pytest.mark.sandbox
async def test_code_finds_inputs_and_shown_pictures_by_the_models_names(
    tool: Python, context: ToolContext, tmp_path: Path
) -> None:
    picture = tmp_path / "Some Photo.JPG"
    picture.write_bytes(encode_picture(np.full((30, 40, 3), 7, np.uint8)))
    declare(context, picture)
    show(context, 10)
    look = "import os\nprint(*sorted(os.listdir('.')), len(open('image-1.jpg', 'rb').read()))"
    told = Text(f"f1.jpg image-1.jpg {picture.stat().st_size}")
    assert await tool.call({"code": look}, context) == (told,)
    show(context, 20)
    with pytest.raises(ToolError, match=r"state|gone"):
        await tool.call({"code": "os._exit(1)"}, context)
    again = await tool.call({"code": look}, context)
    assert isinstance(again[0], Text) and again[0].text.startswith("f1.jpg f2.jpg image-1.jpg")
    with pytest.raises(ToolError, match=r"FileNotFoundError.*\nfiles here: image-1\.jpg, f1\.jpg, f2\.jpg$"):
        await tool.call({"code": "open('video.mp4')"}, context)
    with pytest.raises(ToolError, match="PermissionError"):
        await tool.call({"code": "open('image-1.jpg', 'w')"}, context)
    assert context.incidents == ["python: crashed in execution 2; state lost"]


@pytest.mark.sandbox
async def test_what_code_drew_can_be_zoomed_and_cited(tool: Python, context: ToolContext) -> None:
    code = "import numpy as np\na = np.zeros((400, 200, 3), np.uint8); a[:200] = (250, 0, 0); a"
    text, plot = await tool.call({"code": code}, context)
    assert text == Text("drawn: p1") and isinstance(plot, Image) and plot.view is not None
    assert plot.view.region == Region(0, 0, 200, 400) and plot.view.handle == "p1"
    assert context.media.path(plot.view.source_sha256).is_file()
    _, crop = await Zoom().call({"view": "p1", "box": [0, 500, 1000, 1000]}, context)
    assert isinstance(crop, Image) and crop.view is not None
    assert (crop.view.parent, crop.view.source, crop.view.region) == ("p1", "plot-1", Region(0, 200, 200, 400))
    assert context.media.pixels(crop.media).max() < 10, "the black half"
    _, closer = await Zoom().call({"view": "z1", "box": [0, 0, 500, 500]}, context)
    assert isinstance(closer, Image) and closer.view is not None and closer.view.region == Region(0, 200, 100, 300)
    cited, range_end = resolve("so [p1 0,0,1000,500] and [p1-p1]", context.views, [])
    assert (cited.source, cited.region, cited.seen) == ("plot-1", Region(0, 0, 200, 200), True) and range_end.seen
    await Zoom().close(context)


async def test_large_inputs_are_mounted_where_that_can_be(context: ToolContext, tmp_path: Path) -> None:
    clip = tmp_path / "long.mp4"
    clip.touch()
    with clip.open("r+b") as file:
        file.truncate(SENT_BYTES + 1)
    declare(context, clip, "video-1")
    seen: list[SandboxSpec] = []
    readable = True

    def opener(spec: SandboxSpec, engine: str) -> Sandbox:
        seen.append(spec)
        if spec.mounts and not readable:
            raise SandboxUnavailable("it cannot be read")
        return FakeSandbox(["fine"], spec=spec)

    for readable in (True, False):  # noqa: B007
        tool = Python(opener=opener)
        assert await tool.call({"code": "1"}, context) == (Text("fine"),)
        await tool.close(context)
    (mount,) = seen[0].mounts
    assert str(mount.inside) == "/in/video-1.mp4" and mount.source == clip.resolve()
    assert [bool(spec.mounts) for spec in seen] == [True, True, False]


async def test_runs_share_a_pool_but_no_sandbox(context: ToolContext) -> None:
    opened: list[FakeSandbox] = []

    def opener(spec: SandboxSpec, engine: str) -> Sandbox:
        opened.append(FakeSandbox(["one"], spec=spec))
        return opened[-1]

    with SandboxPool(QUICK, opener=opener) as pool:
        tool = Python(pool=pool)
        assert tool.timeout_s == Python(QUICK).timeout_s
        for _ in range(2):
            assert await tool.call({"code": "1"}, context) == (Text("one"),)
            await tool.close(context)
        pool.fill()
    assert [len(one.executed) for one in opened] == [1, 1, 0] and all(one.closed for one in opened)


def sparse(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path.resolve()


@pytest.mark.sandbox
async def test_a_pooled_sandbox_has_large_inputs_too(tool: Python, context: ToolContext, tmp_path: Path) -> None:
    """Of a folder that the pool mounts by their place in it, however large; others in pieces, as far as they fit."""
    folder = tmp_path.resolve() / "videos"
    folder.mkdir()
    declare(context, sparse(folder / "day.mp4", 3 * SENT_BYTES), "video-1")
    declare(context, sparse(tmp_path / "short.mp4", SENT_BYTES + 1), "video-2")
    spec = replace(QUICK, mounts=(Mount(folder, PurePosixPath("videos")),), preimport=("wave",))
    with SandboxPool(spec) as pool:
        opened: list[SandboxSpec] = []

        def opener(spec: SandboxSpec, engine: str) -> Sandbox:
            opened.append(spec)
            return open_sandbox(spec, engine)

        pooled = Python(pool=pool, opener=opener)
        look = "import os\nprint(*(os.path.getsize(name) for name in ('video-1.mp4', 'video-2.mp4')))"
        try:
            told = await pooled.call({"code": look}, context)
            assert told == (Text(f"{3 * SENT_BYTES} {SENT_BYTES + 1}"),) and not opened
            with pytest.raises(ToolError, match="Error"):
                await pooled.call({"code": "open('video-1.mp4', 'a')"}, context)
        finally:
            await pooled.close(context)


async def test_what_fits_no_pooled_sandbox_gets_one_of_its_own(context: ToolContext, tmp_path: Path) -> None:
    seen: list[SandboxSpec] = []

    def opener(spec: SandboxSpec, engine: str) -> Sandbox:
        seen.append(spec)
        return FakeSandbox(["fine"], spec=spec)

    clip = sparse(tmp_path / "long.mp4", SandboxSpec().limits.file_bytes + 1)
    declare(context, clip, "video-1")
    with SandboxPool(opener=opener) as pool:
        assert pool.fill(5)
        tool = Python(pool=pool, opener=opener)
        assert await tool.call({"code": "1"}, context) == (Text("fine"),)
        await tool.close(context)
    assert [mount.source for mount in seen[-1].mounts] == [clip] and seen[-1].preimport == pool.spec.preimport
