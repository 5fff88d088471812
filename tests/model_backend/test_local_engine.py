"""The local engine on random weights: prefixes, calls, seeds, streams, cancellation."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

import keyeloop.model_backend
from keyeloop.model_backend.base import Delta, Reply, Request, Sampling
from keyeloop.model_backend.keye.config import IndexerConfig, KeyeConfig, SpecialTokens, VisionConfig
from keyeloop.model_backend.keye.cost import KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.engine import LocalBackend
from keyeloop.model_backend.local.prompt import PromptBuilder
from keyeloop.model_backend.local.sequence import CachedSequence
from keyeloop.model_backend.local.worker import Stopped
from keyeloop.runtime.content import Image, Message, Text, ToolSpec, Video
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.evidence import Region, View
from keyeloop.runtime.media import MediaStore

TOKENIZER = Path(keyeloop.model_backend.__file__).parent / "keye_tiny" / "tokenizer.json"
ARGUMENTS = {
    "type": "object",
    "properties": {
        "view": {"enum": ["f1", "z2"]},
        "box": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1000}, "maxItems": 4},
        "how": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"much": {"type": "boolean"}}}]},
        "note": {"type": "string", "maxLength": 5},
    },
    "required": ["view", "box"],
}
TOOLS = (ToolSpec("zoom", "Look closer.", ARGUMENTS), ToolSpec("stop", "", {"type": "object", "properties": {}}))


class EagerModel(KeyeModel):
    """Random weights with a taste for some tokens, so that short replies have all parts of a reply."""

    def __init__(self, config: KeyeConfig, liked: dict[int, float]) -> None:
        torch.manual_seed(3)
        super().__init__(config)
        bias = torch.zeros(config.vocab_size)
        for token, weight in liked.items():
            bias[token] = weight
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, *inputs: Any, **options: Any) -> torch.Tensor:
        return super().forward(*inputs, **options) + self.get_buffer("bias")


def build_model(liked: dict[str, float] | None = None, dtype: torch.dtype = torch.float32) -> EagerModel:
    tokenizer = KeyeTokenizer(TOKENIZER)
    ids = [tokenizer.id_of(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start", "vision_end")]
    config = KeyeConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, vocab_size=tokenizer.size, rope_theta=1e4,
        mrope_section=(2, 3, 3), max_position_embeddings=2048, indexer=IndexerConfig(2, 32, 48),
        vision=VisionConfig(32, 64, 1, 2, 56, 14, packing_positions=0), tokens=SpecialTokens(*ids),
    )  # fmt: skip
    return EagerModel(config, {tokenizer.id_of(name): weight for name, weight in (liked or {}).items()}).to(dtype)


def build_backend(model: KeyeModel | None = None) -> LocalBackend:
    return LocalBackend("random", model or build_model(), TOKENIZER, KeyeVisualCost(KEYE_TINY_LIMITS))


@pytest.fixture
def media(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media")


def picture(media: MediaStore, seed: int, width: int = 84, height: int = 56, time_s: float | None = None) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    view = View(f"f{seed}", "video-1", "0" * 64, time_s, Region(0, 0, width, height))
    return Image(media.put_image(pixels), view)


def clip(media: MediaStore, *seeds: int) -> Video:
    return Video(tuple(picture(media, seed, time_s=float(seed)) for seed in seeds))


def opening(media: MediaStore, **sampling: Any) -> Request:
    look = Message("user", (Text("video-1 shows: "), clip(media, 1, 2, 3), Text(" What is on the board at 83 s?")))
    return Request((Message("system", (Text("You answer."),)), look), TOOLS, Sampling(**sampling))


def follow_up(request: Request, reply: Reply, *parts: Any) -> Request:
    return replace(request, messages=(*request.messages, reply.message, Message("tool", parts, tool_call_id="call-1")))


async def test_a_follow_up_reads_only_what_is_new(media: MediaStore) -> None:
    backend = build_backend()
    first = opening(media, max_tokens=12)
    reply = await backend.generate(first, media)
    assert reply.usage.cached_tokens == 0 and reply.usage.output_tokens == 12 and reply.finish == "length"
    assert reply.usage.visual_tokens == 3 * 6 and reply.first_token_s is not None
    second = follow_up(first, reply, Text("z1:"), picture(media, 9))
    counted = backend.count_tokens(second)
    again = await backend.generate(second, media)
    assert again.usage.cached_tokens == reply.usage.input_tokens + 11  # the last token drawn was never read
    assert (again.usage.input_tokens, again.usage.visual_tokens) == (counted.input_tokens, 4 * 6)
    fresh = await build_backend().generate(second, media)
    assert fresh.usage.cached_tokens == 0 and fresh.usage.input_tokens >= again.usage.input_tokens - 12
    await backend.close()
    with pytest.raises(BackendError, match="closed"):
        await backend.generate(first, media)


def sequence_of(model: KeyeModel) -> CachedSequence:
    return CachedSequence(model, "sparse")


def test_prefix_reuse_is_recomputation(media: MediaStore) -> None:
    builder, model = PromptBuilder(KeyeTokenizer(TOKENIZER)), build_model(dtype=torch.float64)
    first = opening(media)
    cached = sequence_of(model)
    with torch.inference_mode():
        logits, known = cached.read(builder.build(first), media, 8, lambda: None)
        drawn = []
        for _ in range(8):
            drawn.append(int(logits[97:123].argmax()) + 64)
            logits = cached.extend(drawn[-1])
        raw = builder._tokenizer.decode(drawn)
        builder.remember(raw, tuple(drawn))
        reply = Message("assistant", raw=raw)
        turns = (*first.messages, reply, Message("tool", (Text("z"), picture(media, 8), clip(media, 2, 7))))
        swapped = (first.messages[0], Message("user", (Text("video-1 shows: "), clip(media, 1, 2, 5))))
        shared = len(builder.build(first).ids) + 8
        for messages, expected in ((turns, shared), (first.messages, shared - 9), (turns, shared - 8), (swapped, None)):
            prompt = builder.build(replace(first, messages=messages))
            logits, known = cached.read(prompt, media, 8, lambda: None)
            fresh, nothing = sequence_of(model).read(prompt, media, 8, lambda: None)
            torch.testing.assert_close(logits, fresh, rtol=0, atol=1e-10)
            assert nothing == 0
            if expected is None:
                (kept,) = [placed.start for placed in prompt.pictures if placed.image == clip(media, 5).frames[0]]
                assert known == kept - len("5.0")  # the third frame differs, from its time on
            else:
                assert known == expected


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_prompt_that_was_stopped_leaves_a_sound_cache(
    media: MediaStore, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyeloop.model_backend.local.sequence.PREFILL_TOKENS", 40)
    builder, model = PromptBuilder(KeyeTokenizer(TOKENIZER)), build_model(dtype=torch.float64)
    prompt, cached, calls = builder.build(opening(media)), sequence_of(model), []

    def check() -> None:
        calls.append(1)
        if len(calls) == after + 1:
            raise Stopped

    with torch.inference_mode():
        with pytest.raises(Stopped):
            cached.read(prompt, media, 8, check)
        logits, known = cached.read(prompt, media, 8, lambda: None)
        fresh, _ = sequence_of(model).read(prompt, media, 8, lambda: None)
    assert known == max(0, after - 1) * 40
    torch.testing.assert_close(logits, fresh, rtol=0, atol=1e-10)


EAGER = {"</think>": 10.0, "<tool_call>": 10.0, "<|im_end|>": 5.0}


async def test_random_weights_make_valid_calls(media: MediaStore) -> None:
    backend = build_backend(build_model(EAGER))
    validators = {tool.name: jsonschema.Draft202012Validator(dict(tool.parameters)) for tool in TOOLS}
    made = []
    for seed in range(6):
        reply = await backend.generate(opening(media, temperature=1.5, seed=seed, max_tokens=400), media)
        assert not reply.malformed or reply.finish == "length"
        for call in reply.message.tool_calls:
            validators[call.name].validate(call.arguments)
            block = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
            made.append(f"<tool_call>\n{block}\n</tool_call>" in (reply.message.raw or ""))
    assert len(made) >= 6 and sum(made) >= len(made) // 2  # strings may be escaped in another way


async def test_no_call_where_none_is_allowed(media: MediaStore) -> None:
    backend = build_backend(build_model(EAGER))
    called = 0
    for seed in range(5):
        request = opening(media, temperature=1.2, seed=seed, max_tokens=60)
        called += "<tool_call>" in ((await backend.generate(request, media)).message.raw or "")
        without = await backend.generate(replace(request, allow_calls=False), media)
        assert "<tool_call>" not in (without.message.raw or "")
    assert called
    assert without.usage.cached_tokens == without.usage.input_tokens - 1  # the tools stay in the prompt


async def test_seed_decides_a_sampled_reply(media: MediaStore) -> None:
    backend = build_backend()
    texts = [
        (await backend.generate(opening(media, temperature=1.0, seed=seed, max_tokens=20), media)).message.raw
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_deltas_join_to_the_reply(media: MediaStore) -> None:
    backend = build_backend(build_model(EAGER))
    threads, seen = set(), []
    for seed in range(4):
        deltas: list[Delta] = []

        def receive(delta: Delta, deltas: list[Delta] = deltas) -> None:
            threads.add(threading.current_thread())
            deltas.append(delta)

        reply = await backend.generate(opening(media, temperature=1.2, seed=seed, max_tokens=300), media, receive)
        raw, joined = reply.message.raw or "", {"reasoning": "", "text": "", "tool_call": ""}
        for delta in deltas:
            joined[delta.kind] += delta.text
        seen += [tag for tag in ("</think>", "<tool_call>") if tag in raw]
        assert (joined["reasoning"], joined["text"]) == (reply.message.reasoning, reply.message.text)
        assert joined["tool_call"] == "".join(part.split("</tool_call>")[0] for part in raw.split("<tool_call>")[1:])
    assert set(seen) == {"</think>", "<tool_call>"} and threads == {threading.main_thread()}


async def test_cancelling_stops_at_once_and_leaves_a_sound_cache(media: MediaStore) -> None:
    backend, request = build_backend(), opening(media, temperature=1.0, seed=5, max_tokens=1500)
    seen: list[Delta] = []
    first_delta = asyncio.Event()

    def receive(delta: Delta) -> None:
        seen.append(delta)
        first_delta.set()

    task = asyncio.create_task(backend.generate(request, media, receive))
    await first_delta.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped_with = len(seen)
    short = replace(request, sampling=replace(request.sampling, max_tokens=15))
    again = await backend.generate(short, media)
    assert len(seen) == stopped_with < 1400
    fresh = await build_backend().generate(short, media)
    assert again.message.raw == fresh.message.raw and again.usage.cached_tokens > 0


async def test_a_receiver_that_raises_ends_the_reply(media: MediaStore) -> None:
    def receive(delta: Delta) -> None:
        raise RuntimeError("the terminal is gone")

    backend = build_backend()
    with pytest.raises(RuntimeError, match="terminal"):
        await backend.generate(opening(media, temperature=1.0, seed=5, max_tokens=1500), media, receive)
    assert (await backend.generate(opening(media, max_tokens=3), media)).usage.output_tokens == 3


async def test_requests_wait_for_each_other(media: MediaStore) -> None:
    backend, request = build_backend(), opening(media, max_tokens=10)
    replies = await asyncio.gather(*(backend.generate(request, media) for _ in range(3)))
    assert len({reply.message.raw for reply in replies}) == 1


async def test_what_cannot_be_read_is_said(media: MediaStore) -> None:
    backend = build_backend()
    odd = Message("user", (picture(media, 1, width=100, height=60),))
    with pytest.raises(BackendError, match="100x60 pixels cannot be laid out: sides must be multiples of 28"):
        await backend.generate(Request((odd,)), media)
    with pytest.raises(BackendError, match="reads at most 2048"):
        await backend.generate(Request((Message("user", (Text("x" * 2048),)),)), media)
    near = Request((Message("user", (Text("x" * 2000),)),), sampling=Sampling(max_tokens=500))
    reply = await backend.generate(near, media)
    assert reply.usage.input_tokens + reply.usage.output_tokens <= 2048 and reply.finish == "length"


async def test_capabilities() -> None:
    capabilities = build_backend().capabilities()
    assert capabilities.native_video and capabilities.tool_images and capabilities.constrained_calls
    assert capabilities.context_tokens == 2048


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
async def test_a_gpu_answers_as_the_cpu(media: MediaStore) -> None:
    backends = [build_backend(build_model(EAGER, torch.float64).to(device)) for device in ("cpu", "cuda")]
    for seed in range(4):
        request = opening(media, temperature=1.2, top_p=0.95, seed=seed, max_tokens=120)
        replies = [await backend.generate(request, media) for backend in backends]
        assert replies[0].message == replies[1].message and replies[0].message.raw
