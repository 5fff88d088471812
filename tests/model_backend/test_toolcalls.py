"""Replies are taken apart rightly, however they are cut, and whatever they hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyeloop.model_backend.toolcalls import ParsedCall, StreamParser, parse_call, parse_reply

CALL = '<tool_call>\n{"name": "zoom", "arguments": {"view": "f1", "box": [1, 2, 3, 4]}}\n</tool_call>'
ZOOM = ParsedCall("zoom", {"view": "f1", "box": [1, 2, 3, 4]})


def test_thinking_text_and_call() -> None:
    reply = parse_reply(f"I look closer.\n</think>\n\nA moment.\n{CALL}")
    assert (reply.reasoning, reply.text, reply.calls, reply.malformed) == ("I look closer.", "A moment.", (ZOOM,), ())


def test_several_calls_keep_their_order() -> None:
    other = CALL.replace("zoom", "python")
    reply = parse_reply(f"</think>\n\n{CALL}\n{other}\n{CALL}")
    assert [call.name for call in reply.calls] == ["zoom", "python", "zoom"]
    assert reply.text == ""


@pytest.mark.parametrize(
    "raw",
    [
        f"hm</think>{CALL[: -len('</tool_call>')]}",
        f"hm</think>{CALL[: -len('</tool_call>')]}{CALL}".replace(CALL, "", 1),
        'hm</think><tool_call>{"name":"zoom","arguments":"{\\"view\\": \\"f1\\", \\"box\\": [1,2,3,4]}"}</tool_call>',
        'hm</think><tool_call> {"arguments": {"view": "f1", "box": [1, 2, 3, 4]},\n\t"name": " zoom "} </tool_call>\n',
        f"<think>\nhm\n</think>\n{CALL}",
        f"hm\n{CALL}",
    ],
)
def test_tolerated_forms(raw: str) -> None:
    reply = parse_reply(raw)
    assert (reply.reasoning, reply.text, reply.calls) == ("hm", "", (ZOOM,))


def test_open_call_ends_where_the_next_begins() -> None:
    reply = parse_reply(f'</think><tool_call>{{"name": "a"}}{CALL}')
    assert reply.calls == (ParsedCall("a", {}), ZOOM)


def test_tags_inside_strings_are_data() -> None:
    arguments = {"code": 'print("</tool_call>")\nprint("<tool_call>\\"")'}
    body = json.dumps({"name": "python", "arguments": arguments})
    reply = parse_reply(f"</think><tool_call>\n{body}\n</tool_call> done")
    assert reply.calls == (ParsedCall("python", arguments),) and reply.text == "done"


def test_call_in_closed_thinking_is_only_a_thought() -> None:
    reply = parse_reply(f"Shall I write {CALL}? No.</think>417")
    assert reply.calls == () and reply.text == "417" and CALL in reply.reasoning


def test_unclosed_thinking_is_the_answer_unless_it_was_cut() -> None:
    assert parse_reply("It is 417.").text == "It is 417."
    cut = parse_reply("It is 417.", cut=True)
    assert (cut.reasoning, cut.text) == ("It is 417.", "")


def test_no_thinking_opened() -> None:
    assert parse_reply("417", opened_thinking=False).text == "417"
    reply = parse_reply("<think>a</think>417", opened_thinking=False)
    assert (reply.reasoning, reply.text) == ("a", "417")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "empty"),
        ('{"name": "zoom", "arguments": {"view": f1}}', "at character 39, before 'f1}}'"),
        ('{"name": "zoom"', "at character 15, the end"),
        ('{"name": "zoom", "arguments": {}}}', "before '}'"),
        ("[1]", "a list, not an object"),
        ('{"arguments": {}}', 'no "name"'),
        ('{"name": 3, "arguments": {}}', '"name" is a number'),
        ('{"name": "zoom", "view": "f1"}', "its keys are 'name', 'view'"),
        ('{"name": "zoom", "arguments": [1]}', '"arguments" is a list'),
        ('{"name": "zoom", "arguments": "view f1"}', "a string that is not JSON"),
        ('{"name": "zoom", "arguments": {"x": NaN}}', "NaN is not a JSON number"),
        ('{"name": "zoom", "arguments": {"x": "\\ud800"}}', "surrogate"),
        ('{"name": "zoom", "arguments": {"x": -1e999}}', "the number -1e999 is too large"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_malformed_calls_say_what_is_wrong(body: str, problem: str) -> None:
    reply = parse_reply(f"</think>\n<tool_call>\n{body}\n</tool_call>")
    (malformed,) = reply.malformed
    assert problem in malformed.problem and malformed.text == body and not reply.calls


def test_a_broken_call_does_not_swallow_the_next() -> None:
    reply = parse_reply(f'</think><tool_call>\n{{"name": "zoom}}\n</tool_call>\n{CALL}')
    assert reply.calls == (ZOOM,) and len(reply.malformed) == 1


TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, '{"name": "a", "arguments": ']
SHARDS = ['"', "\\", "<", "\n", " ", "x", "{}", "}", "</tool", "_call>", "é", "\ud800", "[", "NaN", "1e999", "9" * 5000]
pieces = st.lists(st.sampled_from(TAGS + SHARDS) | st.text(max_size=5), max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(pieces, st.booleans(), st.booleans())
def test_any_text_parses(parts: list[str], opened: bool, cut: bool) -> None:
    reply = parse_reply("".join(parts), opened, cut)
    assert reply.reasoning == reply.reasoning.strip() and reply.text == reply.text.strip()
    assert all(malformed.problem for malformed in reply.malformed)
    assert all(json.dumps(call.arguments, ensure_ascii=False, allow_nan=False).encode() for call in reply.calls)


@settings(max_examples=300, deadline=None)
@given(pieces, st.booleans(), st.data())
def test_pieces_do_not_matter(parts: list[str], opened: bool, data: st.DataObject) -> None:
    raw = "".join(parts)
    whole = StreamParser(opened)
    expected = whole.feed(raw) + whole.finish()
    parser, deltas = StreamParser(opened), []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        deltas += parser.feed(raw[:size])
        raw = raw[size:]
    deltas += parser.finish()
    for kind in ("reasoning", "text", "tool_call"):
        joined = ["".join(delta.text for delta in some if delta.kind == kind) for some in (expected, deltas)]
        assert joined[0] == joined[1]
    assert parser.bodies == whole.bodies


@settings(max_examples=200, deadline=None)
@given(st.text("abcxyz_", min_size=1), st.dictionaries(st.text(max_size=4), json_values))
def test_written_calls_come_back(name: str, arguments: dict[str, object]) -> None:
    call = {"name": name, "arguments": arguments}
    assert parse_call(json.dumps(call)) == ParsedCall(name, arguments)
    reply = parse_reply(f"</think>ok<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>")
    assert reply.calls == (ParsedCall(name, arguments),) and reply.text == "ok"
