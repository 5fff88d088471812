"""Published names to parameters: each exactly once; every misfit is named; what is saved is read back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from keyeloop.model_backend.keye.export import quantise_rows, save_folder
from keyeloop.model_backend.keye.layout import Stored, assign, published_shapes
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.presets import keye_30b
from keyeloop.model_backend.keye.weights import load_folder
from keyeloop.runtime.errors import CheckpointError, InputError
from tests.model_backend.keye_models import SMALL, random_prompt, small_model

PUBLISHED = {
    r"model\.embed_tokens\.weight": (151936, 2048),
    r"model\.layers\.\d+\.(input|post_attention)_layernorm\.weight": (2048,),
    r"model\.layers\.\d+\.self_attn\.q_proj\.weight": (4096, 2048),
    r"model\.layers\.\d+\.self_attn\.[kv]_proj\.weight": (512, 2048),
    r"model\.layers\.\d+\.self_attn\.o_proj\.weight": (2048, 4096),
    r"model\.layers\.\d+\.self_attn\.[qk]_norm\.weight": (128,),
    r"model\.layers\.\d+\.self_attn\.sa_indexer\.q_proj\.weight": (1040, 2048),
    r"model\.layers\.\d+\.self_attn\.sa_indexer\.k_proj\.weight": (64, 2048),
    r"model\.layers\.\d+\.self_attn\.sa_indexer\.(q_norm\.weight|k_norm\.weight|k_norm\.bias)": (64,),
    r"model\.layers\.\d+\.mlp\.gate\.weight": (128, 2048),
    r"model\.layers\.\d+\.mlp\.experts\.gate_up_proj": (128, 2048, 1536),
    r"model\.layers\.\d+\.mlp\.experts\.down_proj": (128, 768, 2048),
    r"model\.norm\.weight": (2048,),
    r"lm_head\.weight": (151936, 2048),
    r"visual\.vision_model\.embeddings\.patch_embedding\.weight": (1152, 3, 14, 14),
    r"visual\.vision_model\.embeddings\.patch_embedding\.bias": (1152,),
    r"visual\.vision_model\.embeddings\.position_embedding\.weight": (729, 1152),
    r"visual\.vision_model\.embeddings\.packing_position_embedding\.weight": (32768, 1152),
    r"visual\.vision_model\.encoder\.layers\.\d+\.layer_norm[12]\.(weight|bias)": (1152,),
    r"visual\.vision_model\.encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj\.weight": (1152, 1152),
    r"visual\.vision_model\.encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj\.bias": (1152,),
    r"visual\.vision_model\.encoder\.layers\.\d+\.mlp\.fc1\.weight": (4304, 1152),
    r"visual\.vision_model\.encoder\.layers\.\d+\.mlp\.fc1\.bias": (4304,),
    r"visual\.vision_model\.encoder\.layers\.\d+\.mlp\.fc2\.weight": (1152, 4304),
    r"visual\.vision_model\.encoder\.layers\.\d+\.mlp\.fc2\.bias": (1152,),
    r"visual\.vision_model\.post_layernorm\.(weight|bias)": (1152,),
    r"mlp_AR\.pre_norm\.(weight|bias)": (4608,),
    r"mlp_AR\.linear_1\.weight": (4608, 4608),
    r"mlp_AR\.linear_1\.bias": (4608,),
    r"mlp_AR\.linear_2\.weight": (2048, 4608),
    r"mlp_AR\.linear_2\.bias": (2048,),
}


def published_names() -> dict[str, tuple[int, ...]]:
    """All names of the 30B checkpoint, spelled out from the table."""
    names: dict[str, tuple[int, ...]] = {}
    for pattern, shape in PUBLISHED.items():
        spelled = [pattern]
        if r"\d+" in pattern:
            layers = 48 if pattern.startswith("model") else 27
            spelled = [pattern.replace(r"\d+", str(layer)) for layer in range(layers)]
        for text in spelled:
            group = re.search(r"\(([^)]*)\)|\[([a-z0-9]+)\]", text)
            options = [""] if group is None else group[1].split("|") if group[1] else list(group[2])
            for option in options:
                one = text if group is None else text[: group.start()] + option + text[group.end() :]
                more = re.search(r"\(([^)]*)\)", one)
                for last in more[1].split("|") if more else [""]:
                    full = one if more is None else one[: more.start()] + last + one[more.end() :]
                    names[full.replace("\\", "")] = shape
    return names


def test_the_30b_has_the_published_parameters() -> None:
    shapes = published_shapes(keye_30b())
    assert shapes == published_names()
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 31_122_082_160


def test_every_published_name_is_assigned_once() -> None:
    shapes = published_shapes(keye_30b())
    stored = {name: Stored(shape, "BF16") for name, shape in published_names().items()}
    ignored = {
        "visual.vision_model.head.probe": Stored((1, 1, 1152), "BF16"),
        "visual.vision_model.head.attention.in_proj_weight": Stored((3456, 1152), "BF16"),
        "model.rotary_emb.inv_freq": Stored((64,), "F32"),
    }
    assignments = assign(shapes, {**stored, **ignored}, "here")
    assert sorted(a.name for a in assignments) == sorted(stored)
    assert sorted(a.parameter for a in assignments) == sorted(shapes)


def test_experts_stored_one_by_one_fill_the_30b_once() -> None:
    shapes = published_shapes(keye_30b())
    stored = {name: Stored(shape, "BF16") for name, shape in shapes.items() if ".experts." not in name}
    for layer in range(48):
        for expert in range(128):
            stem = f"model.layers.{layer}.mlp.experts.{expert}"
            stored[f"{stem}.gate_proj.weight"] = stored[f"{stem}.up_proj.weight"] = Stored((768, 2048), "BF16")
            stored[f"{stem}.down_proj.weight"] = Stored((2048, 768), "BF16")
    places = [(a.parameter, a.expert, a.part) for a in assign(shapes, stored, "here")]
    assert len(places) == len(set(places)) == len(stored)
    del stored["model.layers.7.mlp.experts.9.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: model\.layers\.7\.mlp\.experts\.9\.up_proj\.weight"):
        assign(shapes, stored, "here")


def tensors_of(model: KeyeModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def write(folder: Path, *shards: dict[str, Tensor], index: bool = False) -> Path:
    (folder / "config.json").write_text(json.dumps(SMALL.to_dict()))
    names = [f"part-{number}.safetensors" for number in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file({key: tensor.contiguous() for key, tensor in shard.items()}, str(folder / name))
    if index:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def same_answer(one: KeyeModel, other: KeyeModel) -> bool:
    x, positions = random_prompt(one, 20)
    with torch.no_grad():
        return torch.equal(one(x, positions), other(x.to(other.dtype), positions))


@pytest.mark.parametrize("index", [True, False])
def test_shards_load_and_answer_alike(tmp_path: Path, index: bool) -> None:
    model = small_model()
    tensors = list(tensors_of(model).items())
    folder = write(tmp_path, dict(tensors[::2]), dict(tensors[1::2]), index=index)
    loaded = load_folder(folder, dtype=torch.float64)
    assert same_answer(model, loaded) and not loaded.training
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    assert load_folder(folder, dtype=torch.bfloat16, indexer_mode="fp8").dtype == torch.bfloat16


def test_experts_stored_one_by_one_answer_alike(tmp_path: Path) -> None:
    model = small_model()
    tensors = tensors_of(model)
    for layer in range(SMALL.num_hidden_layers):
        stem = f"model.layers.{layer}.mlp.experts"
        both, down = tensors.pop(f"{stem}.gate_up_proj"), tensors.pop(f"{stem}.down_proj")
        for expert in range(SMALL.num_experts):
            gate, up = both[expert].t().chunk(2)
            tensors[f"{stem}.{expert}.gate_proj.weight"] = gate
            tensors[f"{stem}.{expert}.up_proj.weight"] = up
            tensors[f"{stem}.{expert}.down_proj.weight"] = down[expert].t()
    assert same_answer(model, load_folder(write(tmp_path, tensors), dtype=torch.float64))


def test_every_misfit_is_listed_at_once(tmp_path: Path) -> None:
    tensors = tensors_of(small_model())
    del tensors["model.norm.weight"]
    tensors["model.layers.0.self_attn.qkv_proj.weight"] = torch.zeros(3, 3)
    tensors["lm_head.weight"] = torch.zeros(41, 24)
    down = "model.layers.1.mlp.experts.down_proj"
    tensors[down] = tensors[down].transpose(1, 2)
    with pytest.raises(CheckpointError) as caught:
        load_folder(write(tmp_path, tensors))
    for piece in (
        "1 missing: model.norm.weight", "1 not part of the model: model.layers.0.self_attn.qkv_proj.weight",
        "2 wrong", "lm_head.weight has shape [41, 24], the model needs [40, 24]", "expert, in, out", str(tmp_path),
    ):  # fmt: skip
        assert piece in str(caught.value)


def test_a_tensor_given_twice_is_an_error(tmp_path: Path) -> None:
    tensors = tensors_of(small_model())
    with pytest.raises(CheckpointError, match="is in both"):
        load_folder(write(tmp_path, tensors, {"model.norm.weight": tensors["model.norm.weight"]}))


def test_fused_and_single_experts_together_are_an_error() -> None:
    shapes = published_shapes(SMALL)
    stored = {name: Stored(shape, "F32") for name, shape in shapes.items()}
    stored["model.layers.0.mlp.experts.3.down_proj.weight"] = Stored((24, 12), "F32")
    with pytest.raises(CheckpointError, match="stores again"):
        assign(shapes, stored, "here")


def test_unreadable_types_and_lonely_int8_are_errors() -> None:
    shapes = published_shapes(SMALL)
    stored = {name: Stored(shape, "F32") for name, shape in shapes.items()}
    head = "lm_head.weight"
    for change, named in (
        ({head: Stored((40, 24), "F8_E4M3")}, "stored as F8_E4M3"),
        ({head: Stored((40, 24), "I8")}, "int8 without"),
        ({head: Stored((40, 24), "I8"), f"{head}.scale": Stored((24, 1), "F32")}, "does not broadcast"),
        ({f"{head}.scale": Stored((40, 1), "F32")}, "not part of the model"),
    ):
        with pytest.raises(CheckpointError, match=named):
            assign(shapes, {**stored, **change}, "here")


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        load_folder(tmp_path / "absent")
    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_dict()))
    with pytest.raises(InputError, match=r"no \*\.safetensors weights"):
        load_folder(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load_folder(tmp_path)
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="download it again"):
        load_folder(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "absent.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"1 of 1 weight files missing: absent\.safetensors"):
        load_folder(tmp_path)
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="weight_map"):
        load_folder(tmp_path)


def test_saved_in_float_it_comes_back_equal(tmp_path: Path) -> None:
    model = small_model(torch.float32)
    save_folder(model, tmp_path, int8=False)
    assert same_answer(model, load_folder(tmp_path))


def test_saved_in_int8_it_comes_back_near_and_small(tmp_path: Path) -> None:
    model = small_model(torch.float32)
    (tmp_path / "stale.safetensors").write_bytes(b"old")
    files = save_folder(model, tmp_path, max_file_bytes=100_000)
    shards = [path for path in files if path.suffix == ".safetensors"]
    assert len(shards) > 1 and sorted(tmp_path.glob("*.safetensors")) == sorted(shards)
    assert all(path.stat().st_size <= 100_000 for path in shards)
    loaded = load_folder(tmp_path)
    for (name, one), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
        axis = 1 if one.ndim > 1 else 0
        step = one.detach().abs().amax(axis, keepdim=True) / 127
        assert ((one - other).abs() <= step * 0.501).all(), name
        if one.ndim == 1 or name.endswith("mlp.gate.weight"):
            assert torch.equal(one, other), name
    assert not torch.equal(model.lm_head.weight, loaded.lm_head.weight)
    again = tmp_path / "again"
    save_folder(loaded, again)
    assert same_answer(loaded, load_folder(again))


def test_scales_follow_output_rows() -> None:
    matrix, experts = torch.randn(5, 7), torch.randn(3, 7, 4)
    assert quantise_rows(matrix)[1].shape == (5, 1) and quantise_rows(experts)[1].shape == (3, 1, 4)
    values, scale = quantise_rows(torch.zeros(2, 3))
    assert torch.equal(values.float() * scale, torch.zeros(2, 3))
