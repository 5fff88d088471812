"""Media that Python tools return: figures, paths of pictures and videos; texts too long for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest

from keyeloop.runtime.content import Image, Text, Video
from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.artifacts import artifacts_folder
from keyeloop.tools.base import ToolContext
from keyeloop.tools.decorate import FunctionTool, tool
from keyeloop.tools.read_artifact import MAX_CHARS, read_artifact
from keyeloop.tools.video.zoom import Zoom
from tests.tools.moving_pictures import write_video

matplotlib.use("agg")


def returning(value: Any) -> FunctionTool[[], Any]:
    return tool(name="give")(lambda: value)


async def test_a_figure_is_a_picture_that_can_be_zoomed(context: ToolContext) -> None:
    from matplotlib import pyplot

    context.visual_budget_tokens = 1000

    def plot() -> Any:
        figure, axes = pyplot.subplots(figsize=(2, 1))
        axes.plot([1, 2, 3])
        return ["see", figure, axes]

    parts = await tool(plot).call({}, context)
    assert [type(part) for part in parts] == [Text, Text, Image, Text, Image]
    assert parts[1] == Text("drawn: p1") and parts[3] == Text("drawn: p2")
    assert not pyplot.get_fignums(), "pyplot keeps none of them"
    zoomed = await Zoom().call({"view": "p1", "box": [0, 0, 500, 500]}, context)
    assert isinstance(zoomed[1], Image)


async def test_the_path_of_a_picture_is_the_picture(context: ToolContext, tmp_path: Path) -> None:
    path = tmp_path / "seen.png"
    cv2.imwrite(str(path), np.full((56, 56, 3), (9, 99, 199), np.uint8)[:, :, ::-1])
    for value in (path, [path], ("here", path)):
        *_, picture = await returning(value).call({}, context)
        assert isinstance(picture, Image) and context.media.pixels(picture.media)[5, 5].tolist() == [9, 99, 199]


async def test_the_path_of_a_video_is_an_input_of_the_run(context: ToolContext, tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    write_video(path, [0, 10, 20, 30])
    text, video = await returning(path).call({}, context)
    assert isinstance(text, Text) and text.text.startswith("made-1: f1 at 0.0 s")
    assert isinstance(video, Video) and len(video.frames) > 1 and list(context.inputs) == ["made-1"]
    zoomed = await Zoom().call({"view": "f1", "box": [0, 0, 500, 500]}, context)
    assert isinstance(zoomed[1], Image)


async def test_other_paths_are_text_and_missing_media_the_tools_fault(context: ToolContext, tmp_path: Path) -> None:
    assert await returning(Path("/a/b.txt")).call({}, context) == (Text("/a/b.txt"),)
    with pytest.raises(ToolDefinitionError, match="there is no such file: write it first"):
        await returning(tmp_path / "missing.png").call({}, context)
    (tmp_path / "lies.mp4").write_text("no video")
    with pytest.raises(ToolDefinitionError, match="a video that cannot be shown"):
        await returning(tmp_path / "lies.mp4").call({}, context)


async def test_a_long_text_is_kept_whole_and_can_be_read_on(context: ToolContext) -> None:
    long = "".join(f"line {number}\n" for number in range(5000))
    small = tool(name="list_all", max_text_chars=200)(lambda: long)
    for number in (1, 2):
        (shown,) = await small.call({}, context)
        assert isinstance(shown, Text) and len(shown.text) < 300
        assert f"characters left out; all of it is in artifacts/list_all-{number}.txt ..." in shown.text
    assert (artifacts_folder(context) / "list_all-1.txt").read_text() == long
    (piece,) = await read_artifact.call({"name": "artifacts/list_all-1.txt", "start": 1000}, context)
    assert isinstance(piece, Text) and long[1000 : 1000 + MAX_CHARS] in piece.text
    (found,) = await read_artifact.call({"name": "list_all-2.txt", "find": "line 4321"}, context)
    assert isinstance(found, Text) and found.text.split("\n")[1] == "line 4321"
    for name, start in (("../journal.jsonl", 0), ("list_all-3.txt", 0), ("list_all-1.txt", len(long))):
        with pytest.raises(ToolError, match=r"there is no artifacts/|past its end"):
            await read_artifact.call({"name": name, "start": start}, context)
    with pytest.raises(ToolError, match="does not hold 'nowhere'"):
        await read_artifact.call({"name": "list_all-1.txt", "find": "nowhere"}, context)
