"""The tool that runs the model's Python code, in a sandbox that lives as long as the run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from keyeloop.runtime.content import Image, Part, Text, ToolSpec
from keyeloop.runtime.errors import InputError, SandboxError, SandboxUnavailable, ToolError
from keyeloop.runtime.picture import read_header
from keyeloop.sandbox import (
    Availability,
    Display,
    ExecResult,
    Mount,
    Sandbox,
    SandboxPool,
    SandboxSpec,
    availability,
    open_sandbox,
)
from keyeloop.tools.base import ToolContext
from keyeloop.tools.python_seat import SENT_BYTES, SENT_SHARE, Seat
from keyeloop.tools.results import shortened
from keyeloop.tools.video.frames import close_decoder
from keyeloop.tools.video.still import show_drawn

MAX_TEXT_CHARS: Final = 8_000
"""Of what was printed or shown; the middle of more is left out."""
MAX_ERROR_CHARS: Final = 1_000
MAX_PICTURES: Final = 4
MAX_NAMES: Final = 12
"""Of files, told where code looked for one that is not there."""
MAX_PICTURE_PIXELS: Final = 16_000_000
OPENING_S: Final = 60.0
"""Allowed for the first call, on top of the code's own time."""

SPEC = ToolSpec(
    "python",
    "Run Python code in a sandbox; print what you need.",
    {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
)
"""keye-tiny is trained on this exact schema: change it only with a new training."""
SPEC_WITH_FILES = replace(
    SPEC,
    description=(
        "Run Python code in a sandbox; print what you need. Where it starts it finds the inputs (video-1.mp4) and the "
        "pictures you were shown (f1.jpg, z1.jpg), read-only. Variables are kept; figures come back as pictures."
    ),
)
"""For models that were not trained on :data:`SPEC`."""

_ENDED: Final = {
    "oom": "the code ran out of memory ({memory_mib} MiB)",
    "crashed": "the Python process ended while it ran the code",
    "protocol": "the Python process had to be stopped: it disturbed its own connection",
}


class Python:
    """``python(code)``: what the code printed and its last value as text, what it drew as pictures.

    Variables live from call to call. The run's inputs and the pictures that the model was shown are files where code
    starts, read-only, under the names that the model knows (``video-1.mp4``, ``f1.jpg``). Nothing runs outside a
    sandbox: without one every call is an error that says why.
    """

    in_order = SPEC.name
    rebuilds = True
    """Later calls stand on the variables of earlier ones: these are made again where a run goes on elsewhere."""

    def __init__(
        self,
        sandbox: SandboxSpec | None = None,
        engine: str = "auto",
        *,
        opener: Callable[[SandboxSpec, str], Sandbox] = open_sandbox,
        pool: SandboxPool | None = None,
        tell_files: bool = False,
    ) -> None:
        """``opener`` starts a run's sandbox of this spec and engine, at the run's first call.

        A ``pool`` brings its own spec and engine, and gives its sandboxes to all runs but those with inputs that are
        too large to be sent and lie in no folder that its spec mounts. ``tell_files`` describes the files to the model
        (:data:`SPEC_WITH_FILES`).
        """
        self.spec = SPEC_WITH_FILES if tell_files else SPEC
        self._sandbox = sandbox or (pool.spec if pool else SandboxSpec())
        self._engine = pool.engine if pool else engine
        self._opener = opener
        self._pool = pool

    @property
    def timeout_s(self) -> float:
        """Longer than the sandbox's own limits, which end code first and keep its variables if they can."""
        limits = self._sandbox.limits
        return limits.wall_s + limits.interrupt_grace_s + OPENING_S

    def availability(self) -> Availability:
        """Whether code can be isolated on this machine, with the reason and remedy otherwise; starts a sandbox once."""
        return availability(self._sandbox, self._engine)

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Run ``code``; opens the sandbox at the first call. Raises ToolError for what the model should mend."""
        seat: Seat = context.state.setdefault(SPEC.name, self._seat(context))
        code, stop = str(arguments["code"]), threading.Event()
        try:
            result = await asyncio.to_thread(seat.exec, code, stop, dict(context.shown))
        except SandboxError as error:
            context.incidents.append(f"python: the sandbox failed: {error}")
            raise
        except SandboxUnavailable as error:
            context.incidents.append(f"python: no sandbox: {error}")
            raise ToolError(f"python is not available here: {error}") from error
        except asyncio.CancelledError:
            stop.set()
            seat.interrupt()
            raise
        if result.status not in ("ok", "error") or result.state_lost:
            lost = "state lost" if result.state_lost else "state kept"
            context.incidents.append(f"python: {result.status} in execution {result.index}; {lost}")
        if result.status != "ok":
            raise ToolError(self._problem(result, code, seat.files))
        return await _parts(result, context)

    async def close(self, context: ToolContext) -> None:
        """End the run's sandbox, and the decoder of its pictures; idempotent."""
        close_decoder(context)
        seat = context.state.pop(SPEC.name, None)
        if seat is not None:
            await asyncio.to_thread(seat.close)

    def _seat(self, context: ToolContext) -> Seat:
        limits = self._sandbox.limits
        sent_bytes = SENT_BYTES if self._pool is None else min(limits.work_bytes // SENT_SHARE, limits.file_bytes)
        return Seat(self._open, context.inputs, context.media, mounted=self._sandbox.mounts, sent_bytes=sent_bytes)

    def _open(self, mounts: tuple[Mount, ...]) -> Sandbox:
        if self._pool is not None and not mounts:
            return self._pool.take()
        return self._opener(replace(self._sandbox, mounts=(*self._sandbox.mounts, *mounts)), self._engine)

    def _problem(self, result: ExecResult, code: str, files: Sequence[str]) -> str:
        limits = self._sandbox.limits
        kept = "variables and files of earlier calls are gone" if result.state_lost else "variables are kept"
        if result.status == "timeout":
            text = f"the code ran longer than {limits.wall_s:g} s and was stopped; {kept}"
        elif result.status in _ENDED:
            text = f"{_ENDED[result.status].format(memory_mib=limits.memory_bytes >> 20)}; {kept}"
        else:
            text = _raised(result, code) + (f"; {kept}" if result.state_lost else "")
        if result.error is not None and result.error.name == "FileNotFoundError" and files:
            text += f"\nfiles here: {', '.join(files[:MAX_NAMES])}{', ...' if len(files) > MAX_NAMES else ''}"
        for what, output in (("printed before", result.stdout), ("standard error", result.stderr)):
            if output.strip():
                text += f"\n{what}:\n{shortened(_trimmed(output), MAX_ERROR_CHARS)}"
        return text


async def _parts(result: ExecResult, context: ToolContext) -> tuple[Part, ...]:
    lines = ["the sandbox was started afresh: earlier variables are gone"] if result.state_lost else []
    lines.append(_trimmed(result.stdout))
    drawn = [display for display in result.displays if _picture(display) is not None]
    shown = [str(display.data.get("text/plain", "")) for display in result.displays if display not in drawn]
    pictures, left_out = await _pictures(drawn, context)
    lines += [_trimmed(text) for text in shown]
    lines += [f"standard error:\n{_trimmed(result.stderr)}"] if result.stderr.strip() else []
    lines += [f"file /out/{artifact.path}: {artifact.mime}, {artifact.size} bytes" for artifact in result.artifacts]
    handles = [picture.view.handle for picture in pictures if picture.view is not None]
    lines += [f"drawn: {', '.join(handles)}"] if handles else []
    text = shortened("\n".join(line for line in (*lines, *left_out) if line), MAX_TEXT_CHARS)
    if not text and not pictures:
        text = "no output: print what you need"
    return (*((Text(text),) if text else ()), *pictures)


async def _pictures(drawn: list[Display], context: ToolContext) -> tuple[list[Image], list[str]]:
    """Pictures at the model's size, the budget shared among them; a line for each that cannot be shown."""
    shares = replace(
        context, visual_budget_tokens=context.visual_budget_tokens // max(1, min(len(drawn), MAX_PICTURES))
    )
    pictures: list[Image] = []
    left_out = [f"{len(drawn) - MAX_PICTURES} more pictures left out"] if len(drawn) > MAX_PICTURES else []
    for display in drawn[:MAX_PICTURES]:
        data = _picture(display) or b""
        try:
            header = read_header(data)
            if header.width * header.height > MAX_PICTURE_PIXELS:
                raise InputError(f"{header.width}x{header.height} pixels are more than {MAX_PICTURE_PIXELS}")
            pictures.append(await show_drawn(data, shares))
        except (InputError, ToolError) as error:
            left_out.append(f"picture left out: {error}")
    return pictures, left_out


def _picture(display: Display) -> bytes | None:
    for mime in ("image/png", "image/jpeg"):
        if isinstance(data := display.data.get(mime), bytes):
            return data
    return None


def _raised(result: ExecResult, code: str) -> str:
    """The exception and the line of the code it came from, such as ``NameError: ... (line 2: print(y))``."""
    error = result.error
    if error is None:
        return "the code was interrupted"
    text = shortened(f"{error.name}: {error.message}".rstrip(": "), MAX_ERROR_CHARS)
    lines = code.splitlines()
    if error.line is None or not 1 <= error.line <= len(lines):
        return text
    return f"{text} (line {error.line}: {shortened(lines[error.line - 1].strip(), 120)})"


def _trimmed(text: str) -> str:
    return text.rstrip().lstrip("\n")
