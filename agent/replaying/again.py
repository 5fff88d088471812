"""A recorded question on its way: its tools and its model found, its session played as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

from keyeloop.agent.inputs import CheckedTask
from keyeloop.agent.past import recorded_tools
from keyeloop.agent.playing import StreamEvent, played
from keyeloop.agent.replaying.opening import task_of
from keyeloop.agent.replaying.playback import Playback, settings_of
from keyeloop.agent.session import Session
from keyeloop.model_backend.base import ModelBackend
from keyeloop.runtime.evidence import Source
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.recorded import RecordedDecoder


async def play_again(
    opened: Callable[[], Playback],
    load: Callable[[], ModelBackend],
    tools_for: Callable[[Iterable[Source], Path | None], Toolset],
    session_for: Callable[[CheckedTask, ModelBackend, Toolset, Decoder], Session],
    *,
    own_sampling: bool = False,
) -> AsyncGenerator[StreamEvent, None]:
    """The events of the recorded question that ``opened`` opens: those that are recorded, then new ones.

    Its journal is closed at the end. Limits, prices and sampling are the recorded ones; ``own_sampling`` leaves
    sampling to the session.
    """
    playback = await asyncio.to_thread(opened)
    try:
        task = task_of(playback.asked, playback.start_event, playback.journal.folder)
        tools = recorded_tools(playback.start_event, tools_for(task.sources.values(), task.documents))
        backend = await asyncio.to_thread(load)
        settings = settings_of(playback.asked.config)
        if own_sampling:
            settings.pop("sampling")
        with RecordedDecoder(task.sources.values()) as decoder:
            session = replace(session_for(task, backend, tools, decoder), playback=playback, **settings)
            async with aclosing(played(session)) as events:
                async for event in events:
                    yield event
    finally:
        playback.journal.close()
