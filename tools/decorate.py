"""``@tool``: a typed Python function becomes something a model can call."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, overload

from keyeloop.runtime.content import Part, ToolSpec
from keyeloop.runtime.errors import ToolDefinitionError
from keyeloop.tools.base import ToolContext
from keyeloop.tools.docstring import read_docstring
from keyeloop.tools.results import to_parts
from keyeloop.tools.signature import Signature
from keyeloop.tools.video.frames import close_decoder
from keyeloop.tools.video.still import show_encoded

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class FunctionTool(Generic[P, R]):
    """A Python function as a tool; calling the object itself still calls the function."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        in_order: bool | None = None,
    ) -> None:
        given = str(name or getattr(function, "__name__", ""))
        if not _NAME.fullmatch(given):
            raise ToolDefinitionError(
                f"{given or function!r} is no name for a tool: give one of letters, digits and _ with @tool(name=...)"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ToolDefinitionError(f"tool {given!r} is a generator: return a list of what it yields")
        if not timeout_s > 0:
            raise ToolDefinitionError(f"tool {given!r} has timeout_s={timeout_s!r}: give a positive number of seconds")
        self._function = function
        self._signature = Signature(function, given)
        prose = read_docstring(function.__doc__).prose if description is None else description
        self._spec = ToolSpec(given, prose, self._signature.schema)
        self._timeout_s = timeout_s
        self.in_order = self._signature.takes_context if in_order is None else in_order
        """Calls of such tools within one turn start one after another: so does what asks for the run's context, unless
        told otherwise, because the views that it may name are numbered."""
        update_wrapper(self, function, updated=())

    @property
    def spec(self) -> ToolSpec:
        """Name, description and JSON schema of the arguments, as the model is told."""
        return self._spec

    @property
    def timeout_s(self) -> float:
        """Seconds after which a call is abandoned."""
        return self._timeout_s

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Check the arguments, run the function (a synchronous one in a thread of its own), and shape its result.

        Raises ToolError for arguments that do not fit, and whatever the function raises; a RuntimeError where it calls
        ``sys.exit``, which would end the program that runs the agent.
        """
        bound = self._signature.bind(arguments, context)
        try:
            if _is_async(self._function):
                value: Any = self._function(*bound.args, **bound.kwargs)
            else:
                value = await _in_thread(lambda: self._function(*bound.args, **bound.kwargs))
            if inspect.isawaitable(value):
                value = await value
        except SystemExit as leave:
            raise RuntimeError(f"it called sys.exit({leave.code!r})") from leave
        return to_parts(await show_encoded(value, context), context, self._spec.name)

    async def close(self, context: ToolContext) -> None:
        """Free the decoder of pictures that the function returned as bytes; idempotent."""
        close_decoder(context)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self._spec.name}>"


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    in_order: bool | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function: ``@tool``, or ``@tool(name=..., description=..., timeout_s=..., in_order=...)``.

    The schema comes from the type hints, the description from the docstring (Google, NumPy, Sphinx or plain). A
    parameter annotated ``ToolContext`` is filled in by the run and hidden from the model. The function may be sync or
    async and may return text, numbers, records, pictures or content parts. Raises ToolDefinitionError, naming the
    parameter and the cure, for a function that cannot be described to a model.
    """
    if function is not None:
        return FunctionTool(function, **options)
    return lambda decorated: FunctionTool(decorated, **options)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run ``work`` in a daemon thread: one that never returns holds up neither the loop nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(work)
        except BaseException as raised:  # handed over whole to whoever awaits
            error = raised
        try:
            loop.call_soon_threadsafe(settle, value, error)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    threading.Thread(target=run, name="tool call", daemon=True).start()
    return await future
