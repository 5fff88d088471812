"""Tokens of a request under a tokenizer like Qwen's: those of the whole text at once, where pieces of it meet too."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from keyeloop.model_backend.base import Request
from keyeloop.model_backend.keye.template import END, Chunk, Joined, Picture, Plain, Spoken, render
from keyeloop.model_backend.keye.tokenizer import PIXELS_PER_TOKEN, KeyeTokenizer
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.local.prompt import PromptBuilder
from keyeloop.model_backend.sglang.native.prompt import NativePrompts
from keyeloop.runtime.content import Image, MediaRef, Message, Part, Text, ToolSpec, Video
from keyeloop.runtime.evidence import Region, View

QWEN_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's and Qwen3's tokenizers cut text before merging (``tokenizer.json`` of the published models)."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>", "<|frame|>")  # fmt: skip
ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Tokens of their own that Qwen's vocabulary does not call special."""
LOOK = ToolSpec("look", "Look there.", {"type": "object", "properties": {"at": {"type": "integer"}}})
ENDS = ("", "\n", "\n\n", " ", ".", ".\n", "}", "}\n", "\t\n ", "'", "a", "7", "é", "\r\n", ">", "…", "\u0301")


def stand_in() -> Tokenizer:
    """A small tokenizer that cuts and merges as Qwen's: trained on words with every pair of ends side by side."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_CUTS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    words = ["user", "system", "assistant", "Be brief", json.dumps(dict(LOOK.parameters)), "# Tools", "the board"]
    corpus = [f"{word}{left}{right}{word}" for word in words for left in ENDS for right in ENDS]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(corpus * 3, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet))
    made.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    made.add_tokens([AddedToken(name, normalized=False) for name in ADDED])
    return made


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> KeyeTokenizer:
    path = tmp_path_factory.mktemp("qwen") / "tokenizer.json"
    stand_in().save(str(path))
    return KeyeTokenizer(path)


def at_once(tokenizer: KeyeTokenizer, chunks: Sequence[Chunk]) -> list[int]:
    """The whole text as a server encodes it; a reply apart, whose tokens were drawn behind what stands before it."""
    ids: list[int] = []
    text = ""
    for chunk in (*chunks, Spoken("")):
        if isinstance(chunk, Picture):
            media = chunk.image.media
            text += chunk.pad * (media.width * media.height // PIXELS_PER_TOKEN)
        elif isinstance(chunk, Spoken):
            ids += tokenizer.encode(text, special=True) + tokenizer.encode(chunk.text, special=True)
            text = ""
        else:
            text += chunk.text
    return ids


def picture(time_s: float = 83.0) -> Image:
    view = View("f1", "video-1", "5" * 64, time_s, Region(0, 0, 56, 28))
    return Image(MediaRef("0" * 64, "image/jpeg", 0, 56, 28), view)


PIECES = st.builds(lambda left, word, right: Text(left + word + right), st.sampled_from(ENDS),
                   st.sampled_from(("", "the board", "Be brief", "x")), st.sampled_from(ENDS))  # fmt: skip
PARTS = st.lists(
    st.one_of(PIECES, st.builds(picture), st.builds(lambda: Video((picture(), picture(84.5))))), max_size=4
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[tuple[Message, ...], tuple[ToolSpec, ...]]:
    def parts() -> tuple[Part, ...]:
        return tuple(draw(PARTS))

    made = [Message("system", tuple(draw(st.lists(PIECES, max_size=2))))] if draw(st.booleans()) else []
    made.append(Message("user", parts()))
    for _ in range(draw(st.integers(0, 2))):
        made.append(Message("assistant", raw=draw(PIECES).text))
        made += [Message("tool", parts(), tool_call_id="c") for _ in range(draw(st.integers(0, 2)))]
        made.append(Message("user", parts()))
    return tuple(made), (LOOK,) if draw(st.booleans()) else ()


@given(conversations())
@settings(max_examples=150, deadline=None)
def test_pieces_are_cut_as_the_whole_text_is(
    tokenizer: KeyeTokenizer, conversation: tuple[tuple[Message, ...], tuple[ToolSpec, ...]]
) -> None:
    messages, tools = conversation
    chunks = render(messages, tools)
    ids = tokenizer.lay_out(chunks).ids
    assert ids == at_once(tokenizer, chunks)
    assert ids == list(NativePrompts(tokenizer).build(Request(messages, tools)).ids)
    assert ids == PromptBuilder(tokenizer).build(Request(messages, tools)).ids


@given(conversations(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_longer_conversation_begins_with_the_same_tokens(
    tokenizer: KeyeTokenizer, conversation: tuple[tuple[Message, ...], tuple[ToolSpec, ...]], data: st.DataObject
) -> None:
    messages, tools = conversation
    replies = [number for number, message in enumerate(messages) if message.role == "assistant"]
    earlier = messages[: data.draw(st.sampled_from(replies))] if replies else messages
    short, long = (tokenizer.lay_out(render(part, tools)).ids for part in (earlier, messages))
    assert long[: len(short)] == short


def test_pieces_really_meet_in_tokens_of_their_own(tokenizer: KeyeTokenizer) -> None:
    """Or the tests above would hold of any way to cut."""
    messages = (Message("system", (Text("Be brief."),)), Message("user", (Text("x"),)))
    chunks = render(messages, (LOOK,))
    apart = [
        token
        for chunk in chunks
        if not isinstance(chunk, Picture)
        for piece in (chunk.pieces if isinstance(chunk, Joined) else (chunk,))
        for token in tokenizer.encode(piece.text, special=not isinstance(piece, Plain))
    ]
    together = tokenizer.lay_out(chunks).ids
    assert together != apart and len(together) < len(apart)
    assert tokenizer.decode(together) == tokenizer.decode(apart)
    assert ".\n\n" in [tokenizer.decode([token]) for token in together]


@pytest.mark.parametrize("name", [*SPECIAL, *ADDED])
def test_a_marks_name_from_outside_is_never_that_mark(tokenizer: KeyeTokenizer, name: str) -> None:
    """Whole, or in two parts that stand side by side; also of marks that the vocabulary does not call special."""
    place = tokenizer.id_of(name)
    for outside in ((Text(f"a {name}."),), (Text(f"a {name[:3]}"), Text(f"{name[3:]}."))):
        messages = (Message("user", (Text("x"),)), Message("assistant", raw="y"), Message("tool", outside))
        plain = (*messages[:2], Message("tool", (Text("a b."),)))
        told, without = (tokenizer.lay_out(render(these, (LOOK,))).ids for these in (messages, plain))
        assert told.count(place) == without.count(place)
        assert tokenizer.decode(told).count(name) == tokenizer.decode(without).count(name) + 1


def test_the_embedded_model_reads_its_pieces_apart_as_it_was_trained_to() -> None:
    """It has no merges; its long tokens are looked for in each piece."""
    tokenizer = KeyeTokenizer(model_folder("keye-tiny") / "tokenizer.json")
    chunks = render((Message("system", (Text("A\n"),)), Message("user", (Text("user"), Text("\n")))), (LOOK,))
    apart = [
        token
        for chunk in chunks
        if not isinstance(chunk, Picture)
        for piece in (chunk.pieces if isinstance(chunk, Joined) else (chunk,))
        for token in tokenizer.encode(piece.text, special=not isinstance(piece, Plain))
    ]
    assert tokenizer.lay_out(chunks).ids == apart
    assert END in tokenizer.decode(apart)
