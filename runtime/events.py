"""What happens in a run, one class an event; the journal is these lines and nothing else.

``run_start steps run_end (question steps run_end)*``, where ``steps`` is ``(request reply (tool_call* tool_result*) |
notice | context_edit)*`` and a ``run_end`` is missing where a process was killed. ``state_rebuilt`` stands where a run
went on in another process; a ``run_end`` before it in the same question does not count any more. Times, durations, ids
(``time_s``, ``duration_s``, ``first_token_s``, ``run_id``) are the only fields that may differ between two runs of
the same task on the same deterministic model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from keyeloop.runtime.content import MalformedCall, ToolCall, ToolSpec, TurnTokens, Usage
from keyeloop.runtime.evidence import Citation, Source, View
from keyeloop.runtime.wire import MessageWire, PartWire, Wire

FORMAT = 2
"""Version of the journal's form; raised when an old reader would misread a new line."""

RunStatus = Literal["answered", "budget", "stopped", "invalid", "interrupted", "failed"]
"""``stopped``: a guard ended it (repeated calls, endless thinking, format errors). ``invalid``: the answer is not of
the type that was asked for, also after it was asked for again."""


class RunTotals(Wire):
    """What a run took so far, all its questions together."""

    questions: int = 0
    turns: int = 0
    """Requests to the model."""
    tool_calls: int = 0
    errors: int = 0
    """Calls that came back as errors."""
    views: int = 0
    """Pictures that tools showed."""
    usage: Usage = Usage()
    duration_s: float = 0.0
    """From the first event to the last, without the time between two questions."""


class Fork(Wire):
    """Where a run branched off."""

    run_id: str
    turn: int
    """The first turn that was asked anew; all before it is the other run's."""


class RebuiltCall(Wire):
    """A recorded call that was made again, because later calls stand on what it did."""

    call_id: str
    name: str
    same: bool
    """Whether it gave what is recorded."""
    difference: str = ""
    """What was other, for people."""
    duration_s: float = 0.0


class EventBase(Wire):
    """Fields of every event; the journal fills them in."""

    seq: int = 0
    """0, 1, 2, ... within the run."""
    time_s: float = 0.0
    """Seconds since the epoch."""


class RunStart(EventBase):
    """A run begins: everything needed to begin it again."""

    kind: Literal["run_start"] = "run_start"
    format: int = FORMAT
    run_id: str
    question: str
    model: str
    tools: tuple[ToolSpec, ...] = ()
    inputs: tuple[Source, ...] = ()
    messages: tuple[MessageWire, ...] = ()
    """What the context opens with: system prompt, first user turn."""
    config: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    fork: Fork | None = None
    """The run that this one branched off from; None for one that was begun afresh."""


class QuestionAsked(EventBase):
    """The conversation goes on with another question: seq, turns, calls and handles count on."""

    kind: Literal["question"] = "question"
    number: int
    """2, 3, ...: the first question is that of ``run_start``."""
    question: str
    model: str
    messages: tuple[MessageWire, ...] = ()
    """What the context goes on with: error results for calls that were cut off, then a user turn."""
    config: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


class RequestSent(EventBase):
    """The model is asked."""

    kind: Literal["request"] = "request"
    turn: int
    """1, 2, 3, ..."""
    messages: int
    """How many messages the request holds."""
    input_tokens: int
    visual_tokens: int = 0
    """Of the input: picture tokens."""
    allow_calls: bool = True


class ReplyReceived(EventBase):
    """The model has answered with one turn."""

    kind: Literal["reply"] = "reply"
    turn: int
    message: MessageWire
    usage: Usage
    finish: Literal["stop", "tool_calls", "length"]
    malformed: tuple[MalformedCall, ...] = ()
    first_token_s: float | None = None
    duration_s: float = 0.0
    tokens: TurnTokens | None = None
    """Behind those of the turn before in the same question; None where the backend does not know them."""


class ToolCalled(EventBase):
    """A tool begins to work; calls of one turn are recorded in the model's order."""

    kind: Literal["tool_call"] = "tool_call"
    turn: int
    call: ToolCall


class ToolReturned(EventBase):
    """A tool has given back what the model will read; recorded in the order of the calls."""

    kind: Literal["tool_result"] = "tool_result"
    turn: int
    call_id: str
    name: str
    parts: tuple[PartWire, ...]
    error: bool = False
    views: tuple[View, ...] = ()
    """Handles that this call minted."""
    details: dict[str, Any] = Field(default_factory=dict)
    """For people and logs, never sent to a model."""
    duration_s: float = 0.0


class ContextEdited(EventBase):
    """Old pictures left the context; later requests carry a stub that keeps their address."""

    kind: Literal["context_edit"] = "context_edit"
    turn: int
    message: int
    """Index in the run's history of the message that was edited."""
    part: int
    """Index of its part that the stub replaces."""
    evicted: tuple[str, ...]
    """Handles of the views that are no longer shown."""
    stub: str
    """The text that stands in their place."""
    freed_tokens: int = 0


class Noticed(EventBase):
    """The loop stepped in: a guard, a budget, a quoted-back call."""

    kind: Literal["notice"] = "notice"
    turn: int
    code: str
    """Such as ``budget``, ``repeated_call``, ``malformed_call``."""
    text: str
    """For people."""
    message: MessageWire | None = None
    """What the model is told, appended to the context; None when it is told nothing."""


class StateRebuilt(EventBase):
    """The question goes on in another process; a ``run_end`` before this, of the same question, is void."""

    kind: Literal["state_rebuilt"] = "state_rebuilt"
    turn: int
    """The last that had begun."""
    calls: tuple[RebuiltCall, ...] = ()
    """Made again, in order, in fresh state. Their results in the context are still the recorded ones."""
    versions: dict[str, str] = Field(default_factory=dict)


class RunEnded(EventBase):
    """A question is over, with its outcome; the run too, unless another question follows."""

    kind: Literal["run_end"] = "run_end"
    status: RunStatus
    answer: str = ""
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    """Sum of all requests of this question."""
    reason: str = ""
    """Why, when the status is not ``answered``."""
    duration_s: float = 0.0
    so_far: RunTotals = RunTotals()
    """Of the whole run; the journal fills it in."""


Event = (
    RunStart
    | QuestionAsked
    | RequestSent
    | ReplyReceived
    | ToolCalled
    | ToolReturned
    | ContextEdited
    | Noticed
    | StateRebuilt
    | RunEnded
)

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def event_to_line(event: Event) -> bytes:
    """One line of JSON without its line end; text that is no Unicode (half a surrogate pair) is replaced by ``?``."""
    try:
        return event.model_dump_json(fallback=str).encode()
    except ValueError:  # a lone surrogate somewhere
        return event.model_copy(update=_clean(event.model_dump(fallback=str))).model_dump_json(warnings=False).encode()


def event_from_line(line: bytes) -> Event:
    """The event that was written down; pydantic's ValidationError for anything else."""
    return _ADAPTER.validate_json(line)


def event_from_object(value: Mapping[str, Any]) -> Event:
    """The event of a line that is parsed already; pydantic's ValidationError for anything else."""
    return _ADAPTER.validate_python(value, strict=False)


def journal_schema() -> dict[str, Any]:
    """The JSON Schema of one line of a journal, in the present format."""
    return _ADAPTER.json_schema(mode="serialization")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
