"""The loop: what it asks, how it ends, and that every ending is recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.answer import Answer
from keyeloop.model_backend.base import Reply, Request, Sampling
from keyeloop.model_backend.scripted import Script, ScriptedBackend, call, calls
from keyeloop.runtime.budget import Limits
from keyeloop.runtime.content import Image, MalformedCall, MediaRef, Message, Text, ToolCall, Usage, Video
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.events import Noticed, RunEnded
from keyeloop.runtime.journal import read_journal
from keyeloop.runtime.trajectory import Trajectory
from keyeloop.tools.base import Tool
from keyeloop.tools.decorate import tool
from tests.agent.small_tools import Careless, add, crash, give_up, leave, look, lost, refuse, too_slow, wait_for

TOOLS: list[Tool] = [add, crash, give_up, leave, look, lost, refuse, too_slow, wait_for]


async def play(
    runs: Path, replies: list[Script], limits: Limits | None = None, **options: Any
) -> tuple[Answer, ScriptedBackend]:
    backend = ScriptedBackend(replies, **options)
    answer = await Agent(backend, TOOLS, limits=limits, runs=runs, on_tool_crash="continue").run("what is it?")
    return answer, backend


def told(request: Request) -> list[str]:
    """What the model was told since its last turn."""
    texts: list[str] = []
    for message in reversed(request.messages):
        if message.role == "assistant":
            break
        texts.insert(0, message.text)
    return texts


def notices(answer: Answer) -> list[str]:
    return [event.code for event in read_journal(answer.run) if isinstance(event, Noticed)]


async def test_a_result_goes_back_and_the_answer_comes_out(tmp_path: Path) -> None:
    answer, backend = await play(tmp_path, [call("add", a=2, b=3), "it is 5"])
    assert (answer.text, answer.status, answer.reason) == ("it is 5", "answered", "")
    assert told(backend.requests[1]) == ["5"]
    assert [message.role for message in backend.requests[1].messages] == ["system", "user", "assistant", "tool"]
    assert answer.usage.input_tokens == sum(backend.count_tokens(request).input_tokens for request in backend.requests)


async def test_parallel_calls_run_together_and_are_recorded_in_call_order(tmp_path: Path) -> None:
    wanted = calls(("wait_for", {"seconds": 0.2}), ("wait_for", {"seconds": 0.1}), ("add", {"a": 1, "b": 1}))
    answer, backend = await play(tmp_path, [wanted, "done"])
    assert told(backend.requests[1]) == ["waited 0.2 s", "waited 0.1 s", "2"]
    step = Trajectory.read(answer.run).steps[0]
    assert [made.called.call.id for made in step.calls] == ["call-1", "call-2", "call-3"]
    assert [made.returned.call_id for made in step.calls if made.returned] == ["call-1", "call-2", "call-3"]
    took = [made.returned.duration_s for made in step.calls if made.returned]
    assert took[0] + took[1] > 0.25 and step.calls[2].returned is not None
    assert step.calls[2].returned.time_s - step.calls[0].called.time_s < 0.3, "one after another would take 0.3 s"


@pytest.mark.parametrize(
    ("wrong", "heard"),
    [
        (call("ad", a=1, b=2), "Error: there is no tool 'ad'; did you mean add? tools: add, crash, give_up,"),
        (call("add", a="x", b=2), "Error: add: a: 'x' is not of type 'integer'"),
        (call("add", a=1), "Error: add: 'b' is a required property"),
        (call("add", a=1, b=2, c=3), "Error: add: there is no 'c'; known: a, b"),
        (call("refuse", why="that"), "Error: not with that; try another"),
        (call("too_slow"), "Error: too_slow was stopped after 0.05 s"),
        (call("crash", denominator=0), "Error: crash broke down (ZeroDivisionError: division by zero)"),
        (call("lost"), "Error: lost could not run: the sandbox died"),
        (call("give_up"), "Error: give_up broke off by itself"),
        (call("leave"), "Error: leave broke down (RuntimeError: it called sys.exit(3))"),
    ],
)
async def test_what_goes_wrong_in_a_call_is_told_to_the_model(tmp_path: Path, wrong: Message, heard: str) -> None:
    answer, backend = await play(tmp_path, [wrong, "done"])
    assert answer.status == "answered"
    assert told(backend.requests[1])[0].startswith(heard)
    result = Trajectory.read(answer.run).steps[0].calls[0].returned
    assert result is not None and result.error


async def test_a_crash_leaves_its_traceback_in_the_journal_only(tmp_path: Path) -> None:
    answer, backend = await play(tmp_path, [call("crash", denominator=0), "done"])
    result = Trajectory.read(answer.run).steps[0].calls[0].returned
    assert result is not None and "return 1 / denominator" in result.details["traceback"]
    assert "Traceback" not in told(backend.requests[1])[0]


SHA = "a" * 64
STRAY = Image(MediaRef(SHA, "image/jpeg", 9, 28, 28))


@pytest.mark.parametrize(
    ("given", "heard"),
    [
        (STRAY, f"a picture that cannot be shown: no media {SHA}"),
        (Video((STRAY,)), "no clip: its frames need one size"),
        (Video(()), "no clip"),
        ("words", "a str, which is no content part"),
    ],
)
async def test_what_cannot_be_shown_never_enters_the_history(tmp_path: Path, given: object, heard: str) -> None:
    backend = ScriptedBackend([call("careless"), "done"])
    answer = await Agent(backend, [Careless(given)], runs=tmp_path, on_tool_crash="continue").run("what is it?")
    (result,) = told(backend.requests[1])
    assert answer.status == "answered" and result.startswith("Error: careless broke down") and heard in result


async def test_seconds_go_on_while_a_call_waits_for_the_one_before(tmp_path: Path) -> None:
    @tool(in_order=True)
    async def take_turns(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"waited {seconds:g} s"

    wanted = calls(*[("take_turns", {"seconds": seconds}) for seconds in (0.3, 0.5)])
    backend = ScriptedBackend([wanted, "done"])
    await Agent(backend, [take_turns], limits=Limits(seconds=0.6), runs=tmp_path).run("?")
    first, second, *_ = told(backend.requests[1])
    assert first == "waited 0.3 s" and second.startswith("Error: take_turns was stopped after 0.")


def broken(text: str = "<tool_call>{") -> Reply:
    raw = f"\n</think>\n\n{text}"
    return Reply(Message("assistant", raw=raw), Usage(), "stop", (MalformedCall(text, "not JSON"),))


async def test_a_malformed_call_is_quoted_back(tmp_path: Path) -> None:
    answer, backend = await play(tmp_path, [broken(), "done"])
    assert told(backend.requests[1]) == [
        "Error: this call could not be read: not JSON in '<tool_call>{'. Write it again."
    ]
    assert answer.status == "answered" and notices(answer) == ["malformed_call"]


async def test_a_good_call_beside_a_malformed_one_is_made(tmp_path: Path) -> None:
    made = ToolCall("x", "add", {"a": 1, "b": 1})
    both = Reply(Message("assistant", tool_calls=(made,)), Usage(), "tool_calls", (MalformedCall("{", "not JSON"),))
    _, backend = await play(tmp_path, [both, "done"])
    assert [message.role for message in backend.requests[1].messages[2:]] == ["assistant", "tool", "user"]
    assert told(backend.requests[1])[0] == "2"


@pytest.mark.parametrize("useless", [broken(), call("nothing"), call("add", a="x"), Message("assistant")])
async def test_format_errors_in_a_row_stop_the_run(tmp_path: Path, useless: Script) -> None:
    answer, backend = await play(tmp_path, [useless, useless, useless, "I give up"])
    assert (answer.status, answer.text) == ("stopped", "I give up")
    assert answer.reason == "3 replies in a row could not be used"
    assert notices(answer)[-1] == "format_errors"
    assert [request.allow_calls for request in backend.requests] == [True, True, True, False]


async def test_format_errors_that_are_mended_do_not_count(tmp_path: Path) -> None:
    mended: list[Script] = [broken(), broken(), call("add", a=1, b=1), broken(), broken(), "done"]
    assert (await play(tmp_path, mended))[0].status == "answered"


async def test_the_same_call_three_times_is_stopped(tmp_path: Path) -> None:
    again = call("add", a=1, b=1)
    answer, backend = await play(tmp_path, [again, call("add", b=1, a=1), again, "2"])
    assert (answer.status, answer.text) == ("stopped", "2")
    assert answer.reason == "add was asked for 3 times with the same arguments"
    refusal, last = told(backend.requests[3])
    assert refusal.startswith("Error: add was asked for 3 times") and last.endswith(
        "Answer now with what you have seen, and cite it."
    )
    assert backend.requests[3].allow_calls is False and backend.requests[3].tools == backend.requests[0].tools


async def test_the_same_tool_with_other_arguments_goes_on(tmp_path: Path) -> None:
    replies: list[Script] = [call("add", a=1, b=number) for number in range(5)]
    assert (await play(tmp_path, [*replies, "4"]))[0].status == "answered"


def thinking(text: str = "so many ways", *, closed: bool = False, finish: Any = "length") -> Reply:
    raw = text + ("\n</think>\n\n" if closed else "")
    return Reply(Message("assistant", reasoning=text, raw=raw), Usage(10, 0, 0, 99, 99), finish)


async def test_endless_thinking_is_stopped_and_asked_for_an_answer(tmp_path: Path) -> None:
    answer, backend = await play(tmp_path, [thinking(), "7"])
    assert (answer.status, answer.text) == ("stopped", "7")
    assert answer.reason == "the thinking was cut after 99 tokens without an answer"
    assert backend.requests[1].messages[2].raw == "so many ways"


async def test_thinking_without_an_end_stands_in_for_an_empty_answer(tmp_path: Path) -> None:
    answer, _ = await play(tmp_path, [thinking("it is 12", finish="stop")])
    assert (answer.status, answer.text) == ("answered", "it is 12")
    last, _ = await play(tmp_path, [thinking(), thinking("still unsure")])
    assert (last.status, last.text) == ("stopped", "still unsure")


async def test_an_empty_reply_is_asked_again(tmp_path: Path) -> None:
    answer, backend = await play(tmp_path, [thinking(closed=True, finish="stop"), "8"])
    assert (answer.status, answer.text) == ("answered", "8")
    assert told(backend.requests[1]) == ["Error: the reply was empty. Call a tool or answer."]


async def test_an_answer_that_was_cut_says_so(tmp_path: Path) -> None:
    cut = Reply(Message("assistant", (Text("it is"),)), Usage(1, 0, 0, 9), "length")
    answer, _ = await play(tmp_path, [cut])
    assert (answer.status, answer.reason) == ("answered", "the answer was cut after 9 tokens")


@pytest.mark.parametrize(
    ("limits", "name", "requests"),
    [
        (Limits(turns=2), "turns", 3),
        (Limits(tool_calls=3), "tool_calls", 4),
        (Limits(total_tokens=600), "total_tokens", 0),
        (Limits(visual_tokens=150), "visual_tokens", 4),
    ],
)
async def test_a_spent_budget_gets_one_last_request(tmp_path: Path, limits: Limits, name: str, requests: int) -> None:
    def next_reply(request: Request) -> Message | str:
        return call("look", at_s=len(request.messages)) if request.allow_calls else "as far as I saw"

    answer, backend = await play(tmp_path, [next_reply] * 20, limits)
    assert (answer.status, answer.text) == ("budget", "as far as I saw")
    assert answer.reason.startswith(f"the limit of {name} is reached")
    assert [request.allow_calls for request in backend.requests].count(False) == 1
    assert backend.requests[-1].tools == backend.requests[0].tools, "the prefix stays"
    assert notices(answer) == [name]
    assert len(backend.requests) == requests or (not requests and 2 < len(backend.requests) < 8)


async def test_calls_beyond_the_limit_of_one_turn_are_refused(tmp_path: Path) -> None:
    wanted = calls(*[("add", {"a": 1, "b": number}) for number in range(4)])
    answer, backend = await play(tmp_path, [wanted, "done"], Limits(tool_calls=2))
    assert told(backend.requests[1])[:2] == ["1", "2"]
    assert all(
        text.startswith("Error: the limit of tool_calls is reached (2)") for text in told(backend.requests[1])[2:4]
    )
    assert answer.status == "budget"


async def test_seconds_cut_a_request_and_a_tool_short(tmp_path: Path) -> None:
    async def dawdle(request: Request) -> str:
        await asyncio.sleep(30)
        return "never"

    answer, _ = await play(tmp_path, [dawdle, "quickly"], Limits(seconds=0.1))
    assert (answer.status, answer.text) == ("budget", "quickly")
    answer, backend = await play(tmp_path, [call("wait_for", seconds=30), "quickly"], Limits(seconds=0.1))
    assert (answer.status, answer.text) == ("budget", "quickly")
    assert told(backend.requests[1])[0].startswith("Error: wait_for was stopped after 0.")


async def test_calls_in_the_last_reply_are_not_made(tmp_path: Path) -> None:
    stray = Message("assistant", (Text("perhaps 3"),), tool_calls=(ToolCall("x", "add", {"a": 1, "b": 2}),))
    answer, _ = await play(tmp_path, [call("add", a=1, b=1), stray], Limits(turns=1))
    assert (answer.status, answer.text) == ("budget", "perhaps 3")
    assert Trajectory.read(answer.run).tool_calls == 1


async def test_a_backend_that_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    def fail(request: Request) -> str:
        raise BackendError("the server is gone")

    with pytest.raises(BackendError, match="server is gone"):
        await play(tmp_path, [call("add", a=1, b=1), fail])
    (run,) = tmp_path.glob("[!.]*")
    end = list(read_journal(run))[-1]
    assert isinstance(end, RunEnded) and (end.status, end.reason) == ("failed", "BackendError: the server is gone")


async def test_an_error_of_our_own_is_recorded_with_its_traceback(tmp_path: Path) -> None:
    def bug(request: Request) -> str:
        raise KeyError("oops")

    with pytest.raises(KeyError):
        await play(tmp_path, [bug])
    (run,) = tmp_path.glob("[!.]*")
    crash_note, end = list(read_journal(run))[-2:]
    assert isinstance(crash_note, Noticed) and "in bug" in crash_note.text
    assert isinstance(end, RunEnded) and end.status == "failed"


async def test_sampling_is_held_to_a_quarter_of_a_small_context(tmp_path: Path) -> None:
    backend = ScriptedBackend(["x"], context_tokens=1000)
    await Agent(backend, [], runs=tmp_path, sampling=Sampling(max_tokens=4096)).run("?")
    assert backend.requests[0].sampling.max_tokens == 250
