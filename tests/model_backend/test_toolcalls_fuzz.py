"""Whatever a model writes: no exception, no sound call lost, every broken one answered with what to correct."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyeloop.model_backend.toolcalls import ParsedCall, StreamParser, parse_call, parse_reply

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["</tool_call>", "<tool_call>", '{"name": "a"}', "```", "\\", '"', "</think>", "é\u2028👁", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
names = st.text("abcxyz_-.", min_size=1, max_size=8)
call_values = st.builds(ParsedCall, names, st.dictionaries(st.text(max_size=5), json_values, max_size=3))


def written(call: ParsedCall, style: int, escaped: bool) -> str:
    """A call as models write it: compact, spread over lines, in a code fence, its arguments as a string."""
    arguments: object = dict(call.arguments)
    if style == 3:
        arguments = json.dumps(arguments, ensure_ascii=escaped)
    body = json.dumps(
        {"name": call.name, "arguments": arguments}, ensure_ascii=escaped, indent=2 if style == 1 else None
    )
    return f"```json\n{body}\n```" if style == 2 else f"\n{body}\n"


@st.composite
def sound_pieces(draw: st.DrawFn) -> tuple[ParsedCall, str]:
    call = draw(call_values)
    return call, written(call, draw(st.integers(0, 3)), draw(st.booleans()))


@st.composite
def broken_pieces(draw: st.DrawFn) -> tuple[None, str]:
    """A body that is no call: cut off anywhere, of another type, nested, twice the same key, no JSON at all."""
    call = draw(call_values)
    body = json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=draw(st.booleans()))
    kind = draw(st.integers(0, 6))
    made = (
        body[: draw(st.integers(0, len(body) - 1))],
        json.dumps([body]),
        json.dumps({"name": 3, "arguments": {}}),
        json.dumps({"name": call.name, "arguments": [1]}),
        "[" * draw(st.sampled_from([1, 7, 20_000])),
        '{"name": "a", "name": "b", "arguments": {}}',
        f"call {call.name} with {draw(st.text('(){}:,=', max_size=6))}",
    )[kind]
    return None, made.replace("<tool_call>", "").replace("</tool_call>", "")


pieces_of_replies = st.lists(
    st.tuples(sound_pieces() | broken_pieces(), st.booleans(), st.sampled_from(["", " ", "\n", "and\n"])), max_size=5
)


@settings(max_examples=120, deadline=None)
@given(pieces_of_replies, st.data())
def test_no_sound_call_is_lost_and_every_broken_one_is_answered(
    pieces: list[tuple[tuple[ParsedCall | None, str], bool, str]], data: st.DataObject
) -> None:
    raw = "I look.</think>"
    for (_, body), closed, after in pieces:
        raw += f"<tool_call>{body}" + (f"</tool_call>{after}" if closed else "\n")
    reply = parse_reply(raw)
    expected = tuple(call for (call, _), _, _ in pieces if call is not None)
    assert reply.calls == expected and reply.reasoning == "I look."
    broken = sum(call is None for (call, _), _, _ in pieces)
    assert bool(reply.malformed) == bool(broken) and len(reply.malformed) <= broken
    assert all(each.problem for each in reply.malformed)
    parser, rest = StreamParser(), raw
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        parser.feed(rest[:size])
        rest = rest[size:]
    parser.finish()
    whole = StreamParser()
    whole.feed(raw)
    whole.finish()
    assert parser.bodies == whole.bodies, "and so while it streams"


@settings(max_examples=100, deadline=None)
@given(call_values, st.integers(0, 3), st.booleans(), st.integers(0, 400), st.booleans())
def test_a_reply_cut_anywhere_has_its_call_or_a_reason(
    call: ParsedCall, style: int, escaped: bool, at: int, cut: bool
) -> None:
    raw = f"hm</think>ok<tool_call>{written(call, style, escaped)}</tool_call>"
    reply = parse_reply(raw[:at], cut=cut)
    assert len(reply.calls) + len(reply.malformed) <= 1
    if at >= len(raw):
        assert reply.calls == (call,)
    elif at >= len("hm</think>ok<tool_call>"):
        assert reply.calls == (call,) or reply.malformed[0].problem
    else:
        assert not reply.calls


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | json_values.map(json.dumps))
@example('{"name": "a", "arguments": {"x": 1, "x": 1}}')
def test_any_body_is_a_call_or_says_what_to_correct(body: str) -> None:
    read = parse_call(body)
    if isinstance(read, ParsedCall):
        assert read.name == read.name.strip() != ""
    else:
        assert len(read.problem) > 8


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "zoom}</tool_call><tool_call>{"name": "a", "arguments": {"x": 1}}',
        '{"name": "zoom", "arguments": {"view": "f1}}<tool_call>{"name": "a", "arguments": {"x": 1}}',
        '{"</tool_call><tool_call>\n{"name": "a", "arguments": {"x": 1}}\n',
    ],
)
def test_an_open_quote_does_not_swallow_the_next_call_on_its_line(body: str) -> None:
    reply = parse_reply(f"</think><tool_call>{body}</tool_call>")
    assert reply.calls == (ParsedCall("a", {"x": 1}),) and len(reply.malformed) == 1


def test_a_sound_call_that_was_swallowed_may_hold_tags_itself() -> None:
    reply = parse_reply(
        '</think><tool_call>{"</tool_call><tool_call>\n{"name": "a", "arguments": {"x": "<tool_call>"}}\n</tool_call>'
    )
    assert reply.calls == (ParsedCall("a", {"x": "<tool_call>"}),) and len(reply.malformed) == 1


def test_many_open_quotes_come_to_an_end() -> None:
    assert parse_reply("</think>" + '<tool_call>{"' * 20_000).malformed


def test_the_same_key_twice_is_asked_about_unless_it_says_the_same() -> None:
    twice = parse_call('{"name": "a", "arguments": {"x": 1, "x": 2}}')
    assert not isinstance(twice, ParsedCall) and "the key 'x' stands there twice" in twice.problem
    assert parse_call('{"name": "a", "arguments": {"x": 1, "x": 1}}') == ParsedCall("a", {"x": 1})
