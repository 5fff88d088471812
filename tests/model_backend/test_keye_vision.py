"""The vision tower against an independent re-implementation in numpy, patch cutting, and the projector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from keyeloop.model_backend.keye import model as keye_model
from keyeloop.model_backend.keye.preprocess import patches_of, resize
from keyeloop.runtime.errors import InputError
from tests.model_backend.keye_models import SMALL, small_model

Array = np.ndarray[Any, Any]


def picture(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (rows * 14, columns * 14, 3), dtype=np.uint8)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias
    return result


def stretched(table: Array, grid: int, rows: int, columns: int) -> Array:
    """Bilinear with half-pixel centres, one target at a time."""
    square, out = table.reshape(grid, grid, -1), []
    for row in range(rows):
        for column in range(columns):
            y = min(max((row + 0.5) * grid / rows - 0.5, 0), grid - 1)
            x = min(max((column + 0.5) * grid / columns - 0.5, 0), grid - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, grid - 1), min(left + 1, grid - 1)
            dy, dx = y - top, x - left
            upper = square[top, left] * (1 - dx) + square[top, right] * dx
            lower = square[below, left] * (1 - dx) + square[below, right] * dx
            out.append(upper * (1 - dy) + lower * dy)
    return np.stack(out)


def turned(heads: Array, columns: int) -> Array:
    """2-D rope on [N, heads, D]: frequencies of the row, then of the column, twice over; pairs half a head apart."""
    out, half = heads.copy(), heads.shape[2] // 2
    for patch in range(heads.shape[0]):
        for i in range(half):
            place = patch // columns if i < half // 2 else patch % columns
            angle = place * 10000 ** (-2 * (i % (half // 2)) / half)
            a, b = heads[patch, :, i], heads[patch, :, i + half]
            out[patch, :, i] = a * math.cos(angle) - b * math.sin(angle)
            out[patch, :, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def reference_features(state: dict[str, Array], pixels: Array) -> Array:
    """Picture to decoder tokens, written from the description alone."""
    vision, rows, columns = SMALL.vision, pixels.shape[0] // 14, pixels.shape[1] // 14

    def w(name: str) -> Array:
        return state["visual.vision_model." + name]

    patches = []
    for row in range(rows):
        for column in range(columns):
            square = pixels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14].astype(np.float64)
            value = (square / 255 - 0.5) / 0.5
            kernel = w("embeddings.patch_embedding.weight")
            patches.append([(kernel[o] * value.transpose(2, 0, 1)).sum() for o in range(len(kernel))])
    x = np.array(patches) + w("embeddings.patch_embedding.bias")
    x = x + stretched(w("embeddings.position_embedding.weight"), vision.grid, rows, columns)
    for layer in range(vision.num_hidden_layers):
        p = f"encoder.layers.{layer}."
        h = layer_norm(x, w(p + "layer_norm1.weight"), w(p + "layer_norm1.bias"), 1e-6)
        q, k, v = (
            (h @ w(f"{p}self_attn.{n}_proj.weight").T + w(f"{p}self_attn.{n}_proj.bias")).reshape(
                len(h), vision.num_attention_heads, -1
            )
            for n in "qkv"
        )
        q, k = turned(q, columns), turned(k, columns)
        mixed = np.empty_like(v)
        for head in range(vision.num_attention_heads):
            logits = q[:, head] @ k[:, head].T / math.sqrt(q.shape[2])
            share = np.exp(logits - logits.max(1, keepdims=True))
            mixed[:, head] = share / share.sum(1, keepdims=True) @ v[:, head]
        attended = mixed.reshape(len(h), -1)
        x = x + attended @ w(p + "self_attn.out_proj.weight").T + w(p + "self_attn.out_proj.bias")
        h = layer_norm(x, w(p + "layer_norm2.weight"), w(p + "layer_norm2.bias"), 1e-6)
        h = h @ w(p + "mlp.fc1.weight").T + w(p + "mlp.fc1.bias")
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + h @ w(p + "mlp.fc2.weight").T + w(p + "mlp.fc2.bias")
    x = layer_norm(x, w("post_layernorm.weight"), w("post_layernorm.bias"), 1e-6)
    tokens = []
    for row in range(0, rows, 2):
        for column in range(0, columns, 2):
            four = [x[(row + a) * columns + column + b] for a in (0, 1) for b in (0, 1)]
            tokens.append(np.concatenate(four))
    merged = layer_norm(np.array(tokens), state["mlp_AR.pre_norm.weight"], state["mlp_AR.pre_norm.bias"], 1e-5)
    h = merged @ state["mlp_AR.linear_1.weight"].T + state["mlp_AR.linear_1.bias"]
    h = 0.5 * h * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
    result: Array = h @ state["mlp_AR.linear_2.weight"].T + state["mlp_AR.linear_2.bias"]
    return result


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (2, 2), (10, 4)])
def test_tower_and_projector_equal_the_reference(rows: int, columns: int) -> None:
    model = small_model()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    pixels = picture(rows, columns)
    with torch.no_grad():
        (found,) = model.encode_pictures([pixels])
    assert np.allclose(found.numpy(), reference_features(state, pixels), atol=1e-5)


def test_pictures_of_all_sizes_are_independent_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    pictures = [picture(2, 4, 1), picture(4, 4, 2), picture(2, 4, 3), picture(4, 2, 4), picture(2, 4, 5)]
    with torch.no_grad():
        alone = [model.encode_pictures([one])[0] for one in pictures]
        together = model.encode_pictures(pictures)
        monkeypatch.setattr(keye_model, "PATCHES_AT_ONCE", 16)
        chunked = model.encode_pictures(pictures)
    for one, two, three in zip(alone, together, chunked, strict=True):
        assert torch.allclose(one, two, atol=1e-10) and torch.allclose(one, three, atol=1e-10)
    assert [len(one) for one in together] == [2, 4, 2, 2, 2]


def test_the_native_grid_needs_no_resampling() -> None:
    embeddings = small_model().visual.vision_model.embeddings
    assert torch.equal(embeddings.positions(5, 5), embeddings.position_embedding.weight)


def test_patches_are_raster_squares_with_channels_first() -> None:
    pixels = picture(4, 6)
    patches = patches_of(torch.from_numpy(pixels[None]), SMALL.vision, torch.float64)[0]
    row, column, y, x, channel = 3, 2, 5, 11, 1
    value = float(pixels[row * 14 + y, column * 14 + x, channel]) / 255 * 2 - 1
    assert patches.shape == (24, 588)
    assert float(patches[row * 6 + column, channel * 196 + y * 14 + x]) == pytest.approx(value, abs=1e-6)
    assert patches.min() >= -1 and patches.max() <= 1


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (np.zeros((28, 30, 3), np.uint8), "multiples of 28"),
        (np.zeros((0, 28, 3), np.uint8), "multiples of 28"),
        (np.zeros((28, 28), np.uint8), "RGB"),
        (np.zeros((28, 28, 4), np.uint8), "RGB"),
        (np.zeros((28, 28, 3), np.float32), "float32"),
    ],
)
def test_unfit_pictures_are_refused(pixels: Array, named: str) -> None:
    with pytest.raises(InputError, match=named):
        small_model().encode_pictures([pixels])


def test_features_stand_where_the_picture_tokens_are() -> None:
    model = small_model()
    tokens = SMALL.tokens
    ids = [1, tokens.image, tokens.image, 2, tokens.video, 3]
    features = [torch.full((2, SMALL.hidden_size), 7.0), torch.full((1, SMALL.hidden_size), 9.0)]
    with torch.no_grad():
        embedded = model.embed(ids, features)
        table = model.model.embed_tokens.weight
    assert torch.equal(embedded[[1, 2]], features[0].double()) and torch.equal(embedded[[4]], features[1].double())
    assert torch.equal(embedded[[0, 3, 5]], table[[1, 2, 3]])
    with pytest.raises(InputError, match="3 picture tokens in the prompt, 2 picture features"):
        model.embed(ids, features[:1])


def test_resize_keeps_fitting_pictures_and_averages_when_it_shrinks() -> None:
    pixels = picture(4, 4)
    assert resize(pixels, 56, 56, "frame") is pixels
    stripes = np.zeros((280, 280, 3), np.uint8)
    stripes[:, ::2] = 200
    for kind in ("image", "frame"):
        small = resize(stripes, 28, 28, "image" if kind == "image" else "frame")
        assert small.shape == (28, 28, 3) and small.dtype == np.uint8
        assert abs(int(small[14, 14, 0]) - 100) <= 2
