"""Constrained calls fit their schema, whatever is drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import keyeloop.model_backend
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.calls import CallGrammar
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.model_backend.toolcalls import parse_call
from keyeloop.runtime.content import ToolSpec
from keyeloop.tools import ClipVideo, Python, Zoom

TOKENIZER = Path(keyeloop.model_backend.__file__).parent / "keye_tiny" / "tokenizer.json"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.read(TOKENIZER)


@pytest.fixture(scope="module")
def grammar(vocabulary: Vocabulary) -> CallGrammar:
    encode = KeyeTokenizer(TOKENIZER).encode_text
    return CallGrammar(
        vocabulary, encode, *(vocabulary.tokens.index(name) for name in (b"<|im_end|>", b"</tool_call>"))
    )


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": obj(),
    "enum": obj(colour={"enum": ["red", 'dark "blue"', None, 3, 2.5, True]}, name={"const": "a\\b"}),
    "numbers": obj(a={"type": "integer", "minimum": -3, "maximum": 1200}, b={"type": "number"}, c={"type": "boolean"}),
    "ranges": obj(x={"type": "number", "minimum": 0.5, "exclusiveMaximum": 60}, y={"type": "integer", "minimum": 7}),
    "box": obj(box={"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}),
    "nested": obj(a=obj(b=obj(c={"type": "array", "items": obj(d={"type": "string", "maxLength": 3}), "maxItems": 2}))),
    "optional": {
        "type": "object",
        "properties": {"z": {"type": "string", "maxLength": 4}, "a": {"type": "null"}, "m": {"type": "boolean"}},
        "required": ["a"],
    },
    "either": obj(x={"anyOf": [{"type": "integer"}, {"type": "null"}, obj(k={"enum": ["v"]})]}),
    "refs": {
        **obj(p={"$ref": "#/$defs/Point"}, more={"type": "array", "items": {"$ref": "#/$defs/Point"}, "maxItems": 2}),
        "$defs": {"Point": obj(x={"type": "integer"}, y={"type": "integer"})},
    },
    "strings": obj(s={"type": "string", "maxLength": 6}, d={"type": "string", "pattern": "^[a-c]{2,4}$"}),
    "open": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "named properties": obj(properties=obj(properties={"type": "boolean"}), additionalProperties={"type": "boolean"}),
    "several types": obj(x={"type": ["integer", "null"]}, y={"oneOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]}),
}


def draw_call(grammar: CallGrammar, vocabulary: Vocabulary, tools: list[ToolSpec], seed: int) -> str:
    """A call made by drawing evenly from what is allowed."""
    chooser, constraint, ids = random.Random(seed), grammar.begin(tools), list[int]()
    while not constraint.done:
        allowed = constraint.allowed(len(vocabulary.tokens)).nonzero().flatten().tolist()
        ending = [index for index in allowed if set(vocabulary.tokens[index]) & set(b'"}]')]
        ids.append(chooser.choice(ending if ending and len(ids) > 60 else allowed))
        constraint.consume(ids[-1])
        assert len(ids) < 2000
    assert vocabulary.tokens[ids[-1]] == b"</tool_call>"
    return vocabulary.decode(ids[:-1])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_draw_fits(grammar: CallGrammar, vocabulary: Vocabulary, name: str) -> None:
    tools = [ToolSpec("file_it", "", SCHEMAS[name]), ToolSpec("file", "", obj(n={"type": "integer"}))]
    validators = {tool.name: jsonschema.Draft202012Validator(dict(tool.parameters)) for tool in tools}
    names = set()
    for seed in range(25):
        body = draw_call(grammar, vocabulary, tools, seed)
        call = parse_call(body)
        assert not hasattr(call, "problem"), call
        validators[call.name].validate(call.arguments)
        declared = list(next(tool for tool in tools if tool.name == call.name).parameters.get("properties", {}))
        order = [key for key in declared if key in call.arguments]
        assert list(call.arguments) == order or not declared
        names.add(call.name)
    assert names == {"file_it", "file"}


def test_the_written_form_is_that_of_json_dumps(grammar: CallGrammar, vocabulary: Vocabulary) -> None:
    tools = [ToolSpec("f", "", obj(a={"type": "array", "items": {"type": "boolean"}, "maxItems": 3}, b={"enum": [1]}))]
    for seed in range(10):
        body = draw_call(grammar, vocabulary, tools, seed)
        assert body == f"\n{json.dumps(json.loads(body))}\n"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"x": {"not": {"type": "string"}}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "(?=lookahead)"}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"$ref": "#/nowhere"}}},
        obj(x={"type": "array", "items": {"type": "boolean"}, "contains": {}}),
    ],
)
def test_a_schema_beyond_the_grammar_still_gives_an_object(
    grammar: CallGrammar, vocabulary: Vocabulary, parameters: Mapping[str, Any]
) -> None:
    call = parse_call(draw_call(grammar, vocabulary, [ToolSpec("odd", "", parameters)], 3))
    assert not hasattr(call, "problem") and call.name == "odd"


def test_special_tokens_are_no_text(grammar: CallGrammar, vocabulary: Vocabulary) -> None:
    constraint = grammar.begin([ToolSpec("say", "", obj(text={"type": "string"}))])
    for byte in b'\n{"name": "say", "arguments": {"text": "<|im_end':
        constraint.consume(vocabulary.tokens.index(bytes([byte])))
    allowed = constraint.allowed(len(vocabulary.tokens) + 5)
    assert not allowed[sorted(vocabulary.special)].any() and not allowed[len(vocabulary.tokens) :].any()
    assert allowed[vocabulary.tokens.index(b"|")] and allowed.dtype == torch.bool


@pytest.mark.parametrize(
    "call",
    [
        {"name": "clip_video", "arguments": {"video": "video-1", "start_s": 83, "end_s": 83.5, "max_frames": 1}},
        {"name": "zoom", "arguments": {"view": "f1", "box": [310, 200, 510, 320]}},
        {"name": "python", "arguments": {"code": "print(383 + 821)"}},
    ],
)
def test_calls_can_be_written_in_the_tokens_that_the_model_was_trained_on(
    grammar: CallGrammar, vocabulary: Vocabulary, call: dict[str, Any]
) -> None:
    constraint = grammar.begin([ClipVideo().spec, Zoom().spec, Python().spec])
    trained = KeyeTokenizer(TOKENIZER).encode_text(f"\n{json.dumps(call)}\n")
    assert any(len(vocabulary.tokens[token]) > 8 for token in trained)
    for token in [*trained, vocabulary.tokens.index(b"</tool_call>")]:
        assert constraint.allowed(len(vocabulary.tokens))[token], vocabulary.tokens[token]
        constraint.consume(token)
    assert constraint.done
