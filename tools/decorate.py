"""``@tool``: a typed Python function becomes something a model can call."""

from __future__ import annotations

import copy
import inspect
from asyncio import AbstractEventLoop, Semaphore, get_running_loop
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import update_wrapper
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload
from weakref import WeakKeyDictionary

from keyeloop.runtime.content import Part, ToolSpec
from keyeloop.runtime.errors import ToolDefinitionError
from keyeloop.tools.base import TOOL_NAME, Progress, ToolContext
from keyeloop.tools.calling import call_function
from keyeloop.tools.docstring import read_docstring
from keyeloop.tools.results import MAX_TEXT_CHARS, to_parts
from keyeloop.tools.returned import show_returned
from keyeloop.tools.signature import Signature
from keyeloop.tools.video.frames import close_decoder

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

OnCrash = Literal["end", "continue"]
"""What an exception that is no ToolError does: end the run, or be told to the model in short."""

DEFAULT_TIMEOUT_S = 60.0


class FunctionTool(Generic[P, R]):
    """A Python function as a tool; calling the object itself still calls the function.

    Above a method it waits for an object: ``Shop().price`` is the tool, ``Shop.price`` is not yet one.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        in_order: bool | None = None,
        concurrency: int | None = None,
        max_text_chars: int = MAX_TEXT_CHARS,
        on_crash: OnCrash | None = None,
    ) -> None:
        of_class = isinstance(function, classmethod)
        if isinstance(function, classmethod | staticmethod):
            function = function.__func__
        given = str(name or getattr(function, "__name__", ""))
        if not TOOL_NAME.fullmatch(given):
            raise ToolDefinitionError(
                f"{given or function!r} is no name for a tool: give one of letters, digits and _ with @tool(name=...)"
            )
        _check_options(given, timeout_s, concurrency, max_text_chars, on_crash)
        self._function: Callable[..., Any] = function
        self._waits_for: Literal["object", "class"] | None = "class" if of_class else _awaited(function)
        described = function if self._waits_for is None else function.__get__(object())
        self._signature = Signature(described, given)
        prose = read_docstring(function.__doc__).prose if description is None else description
        self._spec = ToolSpec(given, prose, self._signature.schema)
        self._timeout_s = timeout_s
        self._max_text_chars = max_text_chars
        self.in_order = self._signature.takes_context if in_order is None else in_order
        """Calls of such tools within one turn start one after another: so does what asks for the run's context, unless
        told otherwise, because the views that it may name are numbered."""
        self.concurrency = concurrency
        """How many calls may run at once, of all runs in this event loop; None is no limit."""
        self.on_crash = on_crash
        """None leaves it to the agent."""
        self._slots: WeakKeyDictionary[AbstractEventLoop, Semaphore] = WeakKeyDictionary()
        update_wrapper(self, function, updated=())

    @property
    def spec(self) -> ToolSpec:
        """Name, description and JSON schema of the arguments, as the model is told."""
        return self._spec

    @property
    def strict_schema(self) -> Mapping[str, Any]:
        """The schema that calls are held to: it also refuses keys that are not declared."""
        return self._signature.strict_schema

    @property
    def timeout_s(self) -> float:
        """Seconds after which a call is abandoned."""
        return self._timeout_s

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> tuple[Part, ...]:
        """Check the arguments, run the function (a synchronous one in a thread of its own), and shape its result.

        Raises ToolError for arguments that do not fit, and whatever the function raises; a RuntimeError where it calls
        ``sys.exit``, which would end the program that runs the agent.
        """
        self.require_bound()
        bound = self._signature.bind(arguments, context)

        def report(progress: Progress) -> None:
            context.report(progress.text, progress.done, progress.total)

        value = await call_function(self._function, bound, report)
        shown = await show_returned(value, context)
        return to_parts(shown, context, self._spec.name, self._max_text_chars)

    async def close(self, context: ToolContext) -> None:
        """Free the decoder of pictures that the function returned as bytes; idempotent."""
        close_decoder(context)

    def slot(self) -> AbstractAsyncContextManager[Any]:
        """Hold it while a call runs: no more of them are given out at once than ``concurrency``."""
        if self.concurrency is None:
            return nullcontext()
        return self._slots.setdefault(get_running_loop(), Semaphore(self.concurrency))

    def require_bound(self) -> None:
        """Raise ToolDefinitionError for a method that was taken from its class."""
        if self._waits_for is not None:
            owner = self._function.__qualname__.rpartition(".")[0].rpartition(".")[2] or "its class"
            bare = self._function.__name__
            taken = f"{owner}.{bare}" if self._waits_for == "class" else f"{owner}(...).{bare}"
            raise ToolDefinitionError(f"tool {self._spec.name!r} is a method: take it as {taken}")

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(
        self: FunctionTool[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> FunctionTool[Q, R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if self._waits_for is None or (self._waits_for == "object" and instance is None):
            return self
        bound = copy.copy(self)
        bound._function = self._function.__get__(owner if self._waits_for == "class" else instance)
        bound._waits_for = None
        return bound

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        value: R = self._function(*args, **kwargs)
        return value

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
    concurrency: int | None = None,
    max_text_chars: int = MAX_TEXT_CHARS,
    on_crash: OnCrash | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function: ``@tool``, or ``@tool(name=..., timeout_s=..., ...)``.

    The schema comes from the type hints, the description from the docstring (Google, NumPy, Sphinx or plain). A
    parameter annotated ``ToolContext`` is filled in by the run and hidden from the model. The function may be a method,
    a closure, sync, async or a generator, which reports by yielding :class:`Progress`; it may return text, numbers,
    records, pictures, figures, paths of pictures and videos, or content parts.

    ``timeout_s`` abandons a call, ``concurrency`` is how many may run at once, ``max_text_chars`` cuts a text in its
    middle and keeps the whole as an artifact of the run, ``on_crash`` says whether an exception that is no ToolError
    ends the run (``end``) or is told to the model (``continue``). Raises ToolDefinitionError, naming the parameter and
    the cure, for a function that cannot be described to a model.
    """
    if function is not None:
        return FunctionTool(function, **options)
    return lambda decorated: FunctionTool(decorated, **options)


def _awaited(function: Callable[..., Any]) -> Literal["object"] | None:
    """Whether a function stands in a class and waits for its object: it begins with ``self``, without a type."""
    if not inspect.isfunction(function):
        return None
    first = next(iter(inspect.signature(function).parameters.values()), None)
    within = function.__qualname__.rpartition(".")[0]
    plain = first is not None and first.name == "self" and first.annotation is inspect.Parameter.empty
    return "object" if plain and within and not within.endswith("<locals>") else None


def _check_options(name: str, timeout_s: float, concurrency: int | None, max_chars: int, on_crash: str | None) -> None:
    if not timeout_s > 0:
        raise ToolDefinitionError(f"tool {name!r} has timeout_s={timeout_s!r}: give a positive number of seconds")
    if concurrency is not None and concurrency < 1:
        raise ToolDefinitionError(f"tool {name!r} has concurrency={concurrency!r}: give 1 or more, or leave it out")
    if max_chars < 100:
        raise ToolDefinitionError(f"tool {name!r} has max_text_chars={max_chars!r}: give 100 or more")
    if on_crash not in (None, "end", "continue"):
        raise ToolDefinitionError(f"tool {name!r} has on_crash={on_crash!r}: give 'end' or 'continue'")
