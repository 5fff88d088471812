"""The decoder against a naive re-implementation with Python loops, and against itself cut in other ways."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from keyeloop.model_backend.keye import decoder, sparse
from keyeloop.model_backend.keye.cache import KVCache
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.sparse import dense_attention, sparse_attention
from tests.model_backend.keye_models import attention, random_prompt, small_model


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight


def turned(x: Tensor, position: Tensor, sections: Sequence[int], theta: float) -> Tensor:
    """Rope of one vector, one pair of dimensions at a time."""
    half = x.shape[0] // 2
    axes = [axis for axis, size in enumerate(sections) for _ in range(size)]
    out = x.clone()
    for i in range(half):
        angle = float(position[axes[i]]) * theta ** (-2 * i / x.shape[0])
        cos, sin = math.cos(angle), math.sin(angle)
        out[i] = x[i] * cos - x[i + half] * sin
        out[i + half] = x[i] * sin + x[i + half] * cos
    return out


def naive_experts(w: dict[str, Tensor], x: Tensor, top: int) -> Tensor:
    out = torch.zeros_like(x)
    for t in range(x.shape[0]):
        logits = [float(row @ x[t]) for row in w["mlp.gate.weight"]]
        chosen = sorted(range(len(logits)), key=lambda e: -logits[e])[:top]
        total = sum(math.exp(logits[e]) for e in chosen)
        for e in chosen:
            both = x[t] @ w["mlp.experts.gate_up_proj"][e]
            gate, up = both[: len(both) // 2], both[len(both) // 2 :]
            hidden = gate / (1 + torch.exp(-gate)) * up
            out[t] += math.exp(logits[e]) / total * (hidden @ w["mlp.experts.down_proj"][e])
    return out


def naive_attention(model: KeyeModel, w: dict[str, Tensor], x: Tensor, positions: Tensor, *, dense: bool) -> Tensor:
    config, theta = model.config, model.config.rope_theta
    dim, group = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    index, sections = config.indexer, config.index_mrope_section
    tokens = x.shape[0]
    q, k, v, index_q, gates, index_k = [], [], [], [], [], []
    for t in range(tokens):
        place = positions[:, t]

        def heads(name: str, t: int = t) -> list[Tensor]:
            return list((w[f"self_attn.{name}_proj.weight"] @ x[t]).view(-1, dim))

        q.append([turned(rms(h, w["self_attn.q_norm.weight"]), place, config.mrope_section, theta) for h in heads("q")])
        k.append([turned(rms(h, w["self_attn.k_norm.weight"]), place, config.mrope_section, theta) for h in heads("k")])
        v.append(heads("v"))
        packed = w["self_attn.sa_indexer.q_proj.weight"] @ x[t]
        wide = index.num_heads * index.head_dim
        norm = w["self_attn.sa_indexer.q_norm.weight"]
        parts = packed[:wide].view(index.num_heads, index.head_dim)
        index_q.append([turned(rms(h, norm), place, sections, theta) for h in parts])
        gates.append(packed[wide:])
        key = w["self_attn.sa_indexer.k_proj.weight"] @ x[t]
        key = (key - key.mean()) / torch.sqrt(key.var(unbiased=False) + 1e-6)
        key = key * w["self_attn.sa_indexer.k_norm.weight"] + w["self_attn.sa_indexer.k_norm.bias"]
        index_k.append(turned(key, place, sections, theta))
    rows = []
    for t in range(tokens):
        scores = [
            sum(float(gates[t][h]) * max(0.0, float(index_q[t][h] @ index_k[s])) for h in range(index.num_heads))
            for s in range(t + 1)
        ]
        best = sorted(range(t + 1), key=lambda s: (-scores[s], s))[: index.topk]
        seen = list(range(t + 1)) if dense else sorted(best)
        row = []
        for h in range(config.num_attention_heads):
            weights = torch.softmax(torch.stack([q[t][h] @ k[s][h // group] for s in seen]) / math.sqrt(dim), 0)
            row.append(sum((weight * v[s][h // group] for weight, s in zip(weights, seen, strict=True)), q[t][h] * 0))
        rows.append(w["self_attn.o_proj.weight"] @ torch.cat(row))
    return torch.stack(rows)


def naive_logits(model: KeyeModel, x: Tensor, positions: Tensor, *, dense: bool = False) -> Tensor:
    state = model.state_dict()
    for layer in range(model.config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        w = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        x = x + naive_attention(model, w, rms(x, w["input_layernorm.weight"]), positions, dense=dense)
        x = x + naive_experts(w, rms(x, w["post_attention_layernorm.weight"]), model.config.num_experts_per_tok)
    final: Tensor = rms(x, state["model.norm.weight"]) @ state["lm_head.weight"].t()
    return final


@pytest.mark.parametrize("dense", [False, True])
def test_equals_the_naive_decoder(dense: bool) -> None:
    model = small_model()
    x, positions = random_prompt(model, 24)
    with torch.no_grad():
        found = model(x, positions, mode="dense" if dense else "sparse", logits="all")
        assert torch.allclose(found, naive_logits(model, x, positions, dense=dense), atol=1e-10)
        assert torch.allclose(model(x, positions, mode="dense" if dense else "sparse"), found[-1:], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_equals_dense_up_to_topk_and_not_beyond(dtype: torch.dtype) -> None:
    model = small_model(dtype, topk=20)
    x, positions = random_prompt(model, 30)
    with torch.no_grad():
        chosen = model(x, positions, mode="sparse", logits="all")
        every = model(x, positions, mode="dense", logits="all")
        assert torch.equal(model(x[:20], positions[:, :20], logits="all"),
                           model(x[:20], positions[:, :20], mode="dense", logits="all"))  # fmt: skip
    assert torch.allclose(chosen[:20], every[:20], atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert (chosen[20:] - every[20:]).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_query_chunks_change_nothing(chunk: int) -> None:
    whole, cut = small_model(), small_model(query_chunk=chunk)
    x, positions = random_prompt(whole, 40)
    with torch.no_grad():
        assert torch.allclose(cut(x, positions, logits="all"), whole(x, positions, logits="all"), atol=1e-12)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_memory_chunks_change_nothing(mode: decoder.AttentionMode, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    x, positions = random_prompt(model, 40)
    with torch.no_grad():
        whole = model(x, positions, mode=mode, logits="all")
        monkeypatch.setattr(sparse, "CPU_BYTES_AT_ONCE", 4096)
        monkeypatch.setattr("keyeloop.model_backend.keye.moe.TOKENS_AT_ONCE", 5)
        monkeypatch.setattr("keyeloop.model_backend.keye.indexer.KEYS_AT_ONCE", 7)
        assert torch.allclose(model(x, positions, mode=mode, logits="all"), whole, atol=1e-12)


@pytest.mark.parametrize("indexer", ["exact", "fp8"])
@pytest.mark.parametrize("cuts", [(1,) * 30, (5, 1, 14, 9, 1), (4, 26), (30,)])
def test_cached_prefix_equals_recomputation(cuts: tuple[int, ...], indexer: str) -> None:
    model = small_model()
    model.indexer_mode = "fp8" if indexer == "fp8" else "exact"
    x, positions = random_prompt(model, 30)
    with torch.no_grad():
        whole = model(x, positions, logits="all")
        cache, rows, done = model.new_cache(capacity=4), [], 0
        for cut in cuts:
            part = slice(done, done + cut)
            rows.append(model(x[part], positions[:, part], cache, logits="all"))
            done += cut
    assert cache.length == 30
    assert torch.allclose(torch.cat(rows), whole, atol=1e-10)


def test_truncated_cache_goes_on_as_if_the_rest_had_never_been() -> None:
    model = small_model()
    x, positions = random_prompt(model, 30)
    other, _ = random_prompt(model, 30, seed=5)
    with torch.no_grad():
        cache = model.new_cache(capacity=8)
        model(torch.cat((x[:17], other[17:])), positions, cache)
        cache.truncate(17)
        found = model(x[17:], positions[:, 17:], cache, logits="all")
        assert torch.allclose(found, model(x, positions, logits="all")[17:], atol=1e-10)
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate(31)


def test_a_pass_that_dies_leaves_the_cache_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    x, positions = random_prompt(model, 30)
    with torch.no_grad():
        cache = model.new_cache()
        model(x[:10], positions[:, :10], cache)

        def fail(*_: object) -> Tensor:
            raise RuntimeError("stop")

        with monkeypatch.context() as patch:
            patch.setattr(model.model.layers[1].mlp, "forward", fail)
            with pytest.raises(RuntimeError, match="stop"):
                model(x[10:15], positions[:, 10:15], cache)
        assert cache.length == 10
        found = model(x[10:], positions[:, 10:], cache, logits="all")
        assert torch.allclose(found, model(x, positions, logits="all")[10:], atol=1e-10)


def test_dense_reading_leaves_a_cache_that_sparse_reading_can_use() -> None:
    model = small_model(topk=64)
    x, positions = random_prompt(model, 30)
    with torch.no_grad():
        cache = model.new_cache()
        model(x[:20], positions[:, :20], cache, mode="dense")
        attention(model).topk = 5
        found = model(x[20:], positions[:, 20:], cache)
        again = model.new_cache()
        attention(model).topk = 64
        model(x[:20], positions[:, :20], again)
        attention(model).topk = 5
        assert torch.allclose(found, model(x[20:], positions[:, 20:], again), atol=1e-12)


def test_random_selection_is_another_model_but_repeats() -> None:
    model = small_model()
    x, positions = random_prompt(model, 30)
    with torch.no_grad():
        once = model(x, positions, mode="random", logits="all")
        assert torch.equal(once, model(x, positions, mode="random", logits="all"))
        right = model(x, positions, logits="all")
        cache = model.new_cache()
        model(x[:29], positions[:, :29], cache, mode="random")
        assert torch.isfinite(model(x[29:], positions[:, 29:], cache, mode="random")).all()
    assert torch.allclose(once[:6], right[:6], atol=1e-12)
    assert (once[6:] - right[6:]).abs().amax() > 1e-3


def test_sparse_attention_with_all_places_is_dense_attention() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(9, 4, 8).double(), torch.randn(9, 2, 8).double(), torch.randn(9, 2, 8).double()
    places = torch.arange(9).expand(9, -1)
    everything = torch.where(places <= torch.arange(9).unsqueeze(1), places, -1)
    assert torch.allclose(sparse_attention(q, k, v, everything), dense_attention(q, k, v, 0), atol=1e-12)
    assert torch.allclose(sparse_attention(q[2:3], k, v, everything[2:3]), dense_attention(q, k, v, 0)[2:3], atol=1e-12)


def test_bfloat16_stays_near_float32() -> None:
    exact = small_model(torch.float32, topk=64)
    x, positions = random_prompt(exact, 30)
    rough = small_model(torch.float32, topk=64).to(torch.bfloat16)
    with torch.no_grad():
        want = exact(x, positions, logits="all")
        found = rough(x.to(torch.bfloat16), positions, logits="all").float()
    assert found.dtype == torch.float32 and (found - want).norm() / want.norm() < 0.05


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the size of the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor) and not tensor._is_view():
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return made


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_a_32k_context_runs_in_bounded_memory(mode: decoder.AttentionMode) -> None:
    """256 new tokens after 32,512 cached ones: no intermediate is larger than a chunk may be."""
    model = small_model(torch.float32, topk=64)
    context, new = 32768, 256
    cache = KVCache(model.config, dtype=torch.float32, capacity=context)
    cache.advance(context - new)
    for buffers in (cache._keys, cache._values, cache._index):
        for tensor in buffers:
            tensor.normal_(generator=torch.Generator().manual_seed(0))
    x, positions = random_prompt(model, new)
    with torch.no_grad(), LargestTensor() as largest:
        out = model(x, positions + context - new, cache, mode=mode)
    assert torch.isfinite(out).all() and cache.length == context
    assert 0 < largest.bytes <= sparse.CPU_BYTES_AT_ONCE
