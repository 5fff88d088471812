"""What may come next in a reply, and how it is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import keyeloop.model_backend
from keyeloop.model_backend.base import Sampling
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.rules import ReplyRules, RuleBook
from keyeloop.model_backend.local.sampling import Sampler
from keyeloop.model_backend.local.vocabulary import Vocabulary
from keyeloop.runtime.content import ToolSpec

TOKENIZER = Path(keyeloop.model_backend.__file__).parent / "keye_tiny" / "tokenizer.json"
TOOL = ToolSpec("zoom", "", {"type": "object", "properties": {"view": {"enum": ["f1"]}}, "required": ["view"]})


@pytest.fixture(scope="module")
def book() -> RuleBook:
    vocabulary = Vocabulary.read(TOKENIZER)
    return RuleBook(vocabulary, KeyeTokenizer(TOKENIZER).encode_text, len(vocabulary.tokens) + 8)


def allowed_names(book: RuleBook, rules: ReplyRules) -> set[str]:
    ids = rules.allowed().nonzero().flatten().tolist()
    return {book.vocabulary.tokens[index].decode() for index in ids if index in book.vocabulary.special}


def follow(book: RuleBook, rules: ReplyRules, text: str) -> None:
    for byte in text.encode():
        rules.consume(book.vocabulary.tokens.index(bytes([byte])))


def test_structure_of_a_reply(book: RuleBook) -> None:
    rules = book.begin([TOOL])
    assert allowed_names(book, rules) == {"<|im_end|>", "</think>"}
    rules.consume(book.structure.think_close)
    assert allowed_names(book, rules) == {"<|im_end|>", "<tool_call>"}
    rules.consume(book.structure.call_open)
    for token in KeyeTokenizer(TOKENIZER).encode_text('\n{"name": "zoom", "arguments": {"view": "f1"}}\n'):
        rules.consume(token)
    assert rules.allowed().nonzero().flatten().tolist() == [book.structure.call_close]
    rules.consume(book.structure.call_close)
    assert allowed_names(book, rules) == {"<|im_end|>", "<tool_call>"}


def test_no_tools_means_no_call(book: RuleBook) -> None:
    rules = book.begin([])
    rules.consume(book.structure.think_close)
    assert allowed_names(book, rules) == {"<|im_end|>"}
    assert not rules.allowed()[len(book.vocabulary.tokens) :].any()


@pytest.mark.parametrize("text", ["</think", "a<tool_call", "<<|im_end|", "</tool_call", "<|image_pad|"])
def test_structure_cannot_be_spelled(book: RuleBook, text: str) -> None:
    rules = book.begin([TOOL])
    follow(book, rules, text)
    close, letter = book.vocabulary.tokens.index(b">"), book.vocabulary.tokens.index(b"x")
    assert rules.spells_structure(close) and not rules.spells_structure(letter)
    follow(book, rules, "x")
    assert not rules.spells_structure(close)


def test_decode_replaces_broken_bytes(book: RuleBook) -> None:
    ids = [book.vocabulary.tokens.index(bytes([byte])) for byte in "é\xff".encode("latin-1")]
    assert book.vocabulary.decode(ids) == "\ufffd\ufffd"


LOGITS = torch.tensor([0.0, 3.0, 2.0, 2.9, -5.0])


def draws(sampling: Sampling, count: int = 300, allowed: torch.Tensor | None = None) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.draw(LOGITS, allowed) for _ in range(count)]


def test_greedy_takes_the_best_allowed() -> None:
    allowed = torch.tensor([True, False, True, True, True])
    assert set(draws(Sampling())) == {1} and set(draws(Sampling(), allowed=allowed)) == {3}


def test_seed_decides_the_draws() -> None:
    assert draws(Sampling(1.0, seed=4)) == draws(Sampling(1.0, seed=4)) != draws(Sampling(1.0, seed=5))
    assert draws(Sampling(1.0)) != draws(Sampling(1.0))


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert set(draws(Sampling(2.0, top_k=2, seed=0))) == {1, 3}
    assert set(draws(Sampling(1.0, top_p=0.4, seed=0))) == {1}
    assert set(draws(Sampling(1.0, top_p=0.8, seed=0))) == {1, 3}
    assert 0 in draws(Sampling(5.0, seed=0))


def test_frequencies_follow_the_softmax() -> None:
    drawn = torch.tensor(draws(Sampling(1.0, seed=7), 4000)).bincount(minlength=5) / 4000
    assert torch.allclose(drawn, LOGITS.softmax(0), atol=0.03)
