"""Tools at work without a model: inputs declared, calls checked and run as in a run, for whoever asks."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from keyeloop.agent.dispatch import Dispatcher, refused
from keyeloop.agent.inputs import PathLike, examine_task, read_images
from keyeloop.agent.wording import source_words
from keyeloop.agent.working import Working
from keyeloop.runtime.content import ToolCall, ToolResult
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.base import Progress, ToolContext
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.frames import STATE_KEY
from keyeloop.tools.video.still import show_still


class ToolService:
    """Lends tools what a run would lend them; pictures live in a folder that is gone at the end.

    Opening raises InputError for inputs that cannot be used, and ToolDefinitionError for a tool with a bad schema.
    """

    def __init__(
        self,
        tools: Toolset,
        cost: VisualCost,
        *,
        videos: Sequence[PathLike] = (),
        images: Sequence[PathLike] = (),
        documents: Path | None = None,
        result_visual_tokens: int,
    ) -> None:
        self._tools = tools
        self._folder = tempfile.TemporaryDirectory(prefix="keyeloop-tools-")
        self._decoder = Decoder()
        self._progress: dict[str, Callable[[Progress], None]] = {}
        self._numbers = itertools.count(1)
        try:
            task = examine_task("tools", videos, images, documents, self._decoder).task()
            self._context = ToolContext(
                inputs=dict(task.sources), media=MediaStore(Path(self._folder.name) / "media"), views=ViewBook(),
                cost=cost, visual_budget_tokens=result_visual_tokens, documents=task.documents,
                state={STATE_KEY: self._decoder},
            )  # fmt: skip
            stills = {
                name: show_still(task.sources[name], pixels, self._context)
                for name, pixels in read_images(task, cost, self._decoder).items()
            }
            self._context.remember(stills.values())
            self._dispatcher = Dispatcher(tools, self._context, "continue", self._heard)
        except BaseException:
            self._let_go()
            raise
        handles = {name: image.view.handle for name, image in stills.items() if image.view is not None}
        self.inputs = tuple(
            source_words(source) + (f", as view {handles[name]}" if name in handles else "")
            for name, source in task.sources.items()
        )
        """Each declared input in words."""

    @property
    def media(self) -> MediaStore:
        """Where the pictures of results are."""
        return self._context.media

    async def call(
        self, name: str, arguments: Mapping[str, Any], report: Callable[[Progress], None] = lambda progress: None
    ) -> ToolResult:
        """Check and make one call; what goes wrong is in its result, worded for a model."""
        call = ToolCall(f"call-{next(self._numbers)}", name, arguments)
        problem = self._dispatcher.problem(call)
        if problem is not None:
            return refused(call, problem)
        self._progress[call.id] = report
        try:
            async for outcome in self._dispatcher.run([call]):
                self._context.remember(outcome.result.parts)
                return outcome.result
        finally:
            del self._progress[call.id]
            self._context.incidents.clear()
        raise AssertionError("a call has an outcome")

    async def close(self) -> None:
        """Free what the tools keep, and the pictures."""
        await asyncio.gather(*(tool.close(self._context) for tool in self._tools), return_exceptions=True)
        self._let_go()

    async def __aenter__(self) -> ToolService:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _heard(self, working: Working) -> None:
        report = self._progress.get(working.call.id)
        if report is not None:
            report(working.progress)

    def _let_go(self) -> None:
        self._decoder.close()
        self._folder.cleanup()
