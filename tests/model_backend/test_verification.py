"""A checkpoint's small files: keye-tiny confirms everything, and a copy broken one way is named for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyeloop.model_backend.keye.layout import published_shapes
from keyeloop.model_backend.keye.presets import keye_30b
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.verification.chat_template import check_template
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.finding import Finding, settled
from keyeloop.model_backend.verification.points import POINTS
from keyeloop.model_backend.verification.reading import check_checkpoint
from keyeloop.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
Breaking = Callable[[Path], None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """keye-tiny's files, weights linked."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in model_folder("keye-tiny").iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
        elif path.suffix in (".json", ".jinja"):
            shutil.copy(path, folder)
    return folder


def off(folder: Path) -> dict[str, Finding]:
    return {one.key: one for one in check_checkpoint(folder)[1] if one.state == "different"}


def edit(folder: Path, name: str, change: Callable[[Any], object]) -> None:
    data = json.loads((folder / name).read_text())
    change(data)
    (folder / name).write_text(json.dumps(data))


def config(**values: Any) -> Breaking:
    return lambda folder: edit(folder, "config.json", lambda data: data.update(values))


def without(*names: str) -> Breaking:
    return lambda folder: edit(folder, "config.json", lambda data: [data.pop(name) for name in names])


def no_video_in_the_tokenizer(folder: Path) -> None:
    def change(data: Any) -> None:
        data["added_tokens"] = [one for one in data["added_tokens"] if one["content"] != "<|video_pad|>"]

    edit(folder, "tokenizer.json", change)


def template(old: str, new: str) -> Breaking:
    def change(folder: Path) -> None:
        text = (folder / "chat_template.jinja").read_text()
        assert old in text
        (folder / "chat_template.jinja").write_text(text.replace(old, new))

    return change


def preprocessor(**values: Any) -> Breaking:
    return lambda folder: edit(folder, "preprocessor_config.json", lambda data: data.update(values))


def ends_elsewhere(folder: Path) -> None:
    edit(folder, "generation_config.json", lambda data: data.update(eos_token_id=256))


BROKEN: dict[str, tuple[Breaking, str, str]] = {
    "theta": (config(rope_theta=1e6), "rope-theta", "model_backend/keye/presets.py"),
    "no theta": (without("rope_theta"), "rope-theta", "model_backend/keye/config.py"),
    "sections": (config(rope_scaling={"mrope_section": [6, 6, 4]}), "rope-sections", "model_backend/keye/presets.py"),
    "topk": (config(sa_config={"indexer_num_heads": 4, "indexer_head_dim": 64, "indexer_num_kv_heads": 1, "topk": 32,
                               "q_chunk_size": 512}), "sparse-attention", "model_backend/keye/presets.py"),
    "norm": (config(rms_norm_eps=1e-5), "norm-epsilon", "model_backend/keye/config.py"),
    "no video id": (without("video_token_id"), "video-token", "model_backend/keye/presets.py"),
    "no video token": (no_video_in_the_tokenizer, "video-token", "model_backend/keye/template.py"),
    "tied head": (config(tie_word_embeddings=True), "config-reader", "model_backend/keye/config.py"),
    "no tools": (template("{%- if tools -%}", "{%- if false -%}"), "template-tools", "model_backend/keye/template.py"),
    "no thinking": (template("assistant\\n<think>\\n' -}}\n{%- endif", "assistant\\n' -}}\n{%- endif"),
                    "template-thinking", "model_backend/keye/template.py"),
    "no results": (template("\\n</tool_response>' -}}", "' -}}"), "template-history", "model_backend/keye/template.py"),
    "no video": (template("<|vision_start|><|video_pad|><|vision_end|>", "<video>"), "template-video",
                 "model_backend/keye/template.py"),
    "grey": (preprocessor(image_mean=[0.48, 0.46, 0.41]), "pixel-values", "model_backend/keye/preprocess.py"),
    "small": (preprocessor(max_pixels=28 * 28 * 50), "picture-limits", "model_backend/keye/cost.py"),
    "end": (ends_elsewhere, "end-of-turn", "model_backend/local/rules.py"),
}  # fmt: skip


def test_keye_tiny_confirms_everything() -> None:
    known, found = check_checkpoint(model_folder("keye-tiny"))
    assert known is not None and known.name == "keye-tiny"
    assert {one.key: one.found for one in found if one.state != "confirmed"} == {}
    assert {one.point for one in found} == {1, 2, 3, 4, 5, 6, 7, 8, None}
    assert len({one.key for one in found}) == len(found)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_and_nothing_else(name: str, copy: Path) -> None:
    breaking, key, change = BROKEN[name]
    assert off(copy) == {}
    breaking(copy)
    found = off(copy)
    if name == "no results":  # a result's mark is in every turn that holds one
        assert set(found) == {key, "template-tool-pictures"}
    else:
        assert set(found) == {key}
    assert found[key].change == change


def test_every_file_to_change_is_there(copy: Path) -> None:
    for one in check_checkpoint(copy)[1]:
        assert (ROOT / one.change).is_file(), one.key
        assert one.source and one.expected and one.found
        assert one.point is None or one.point in POINTS


def large(folder: Path, **values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**keye_30b().to_dict(), **values}))
    return folder


def test_a_config_of_the_release_alone_leaves_open_what_only_other_files_tell(tmp_path: Path) -> None:
    known, found = check_checkpoint(large(tmp_path))
    assert known is not None and known.name == "keye-vl-2.0-30b-a3b"
    states = {one.key: one.state for one in found}
    assert {key for key, state in states.items() if state == "different"} == set()
    assert states["rope-theta"] == states["sparse-attention"] == states["vision-shape"] == "confirmed"
    for key in ("image-token", "frame-text", "patch-order", "template-tools", "sampling", "indexer-code", "weights"):
        assert states[key] == "unknown", key
    assert {one.point for one in found} == {*POINTS, None}


def test_rope_in_the_newer_form_is_read(tmp_path: Path) -> None:
    data = keye_30b().to_dict()
    rope = {"rope_theta": data.pop("rope_theta"), **data.pop("rope_scaling")}
    (tmp_path / "config.json").write_text(json.dumps({**data, "rope_parameters": rope}))
    found = {one.key: one for one in check_checkpoint(tmp_path)[1]}
    assert found["rope-theta"].state == found["rope-sections"].state == "confirmed"
    assert "rope_parameters" in found["rope-theta"].found


def test_inner_vision_layers_and_other_shapes_differ(tmp_path: Path) -> None:
    vision = {**keye_30b().to_dict()["vision_config"], "deepstack_visual_indexes": [8, 16]}
    assert set(off(large(tmp_path / "deep", vision_config=vision))) == {"inner-vision-layers"}
    assert set(off(large(tmp_path / "wide", num_experts=64))) == {"decoder-shape"}
    known, found = check_checkpoint(large(tmp_path / "new", hidden_size=1024))
    assert known is None and {one.key for one in found if one.state == "different"} == set()


CODE = """
class KeyeIndexer(nn.Module):
    def __init__(self, config):
        self.k_norm = nn.LayerNorm(64)
    def forward(self, x):
        q = apply_rotary(hadamard_transform(x))
        return relu(q)

class Other: pass
"""


def test_an_index_without_its_files_tells_names(tmp_path: Path) -> None:
    folder = large(tmp_path)
    names = dict.fromkeys(published_shapes(keye_30b()), "model-00001-of-00013.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (weights,) = (one for one in check_checkpoint(folder)[1] if one.key == "weights")
    assert weights.state == "unknown" and "all that are needed" in weights.found
    names.pop("model.layers.7.self_attn.sa_indexer.k_norm.bias")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert set(off(folder)) == {"weights"}
    assert "model.layers.7.self_attn.sa_indexer.k_norm.bias" in off(folder)["weights"].found


def test_weights_of_another_shape_differ(copy: Path) -> None:
    config(num_experts=4)(copy)
    assert set(off(copy)) == {"decoder-shape", "weights"}


def test_code_is_read_as_text_and_never_run(tmp_path: Path) -> None:
    folder = large(tmp_path)
    (folder / "modeling_keye.py").write_text(CODE + "\nraise SystemExit('it ran')\n")
    (folder / "processing_keye.py").write_text('TEXT = f"<|frame|>{second:.1f}"\nraise SystemExit\n')
    (folder / "image_processing_keye.py").write_text("patches = patches.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)\n")
    found = {one.key: one for one in check_checkpoint(folder)[1]}
    assert found["indexer-code"].state == "confirmed" and "Hadamard" in found["indexer-code"].found
    assert found["frame-text"].state == "unknown" and "{second:.1f}" in found["frame-text"].found
    assert found["patch-order"].state == "different"
    (folder / "image_processing_keye.py").write_text("patches = patches.transpose(0, 3, 5, 2, 1, 4, 6)\n")
    (folder / "modeling_keye.py").write_text(CODE.replace("relu", "sigmoid"))
    found = {one.key: one for one in check_checkpoint(folder)[1]}
    assert found["patch-order"].state == "confirmed" and found["indexer-code"].state == "different"


@pytest.mark.parametrize("text", ["{% for", "{{ messages.clear() }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_a_template_that_does_not_render_is_unknown(text: str, copy: Path) -> None:
    (copy / "chat_template.jinja").write_text(text)
    assert {one.state for one in check_template(Checkpoint(copy), None)} == {"unknown"}


def test_a_template_inside_tokenizer_config_is_found(copy: Path) -> None:
    text = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    edit(copy, "tokenizer_config.json", lambda data: data.update(chat_template=[{"name": "default", "template": text}]))
    assert {one.state for one in check_template(Checkpoint(copy), None)} == {"confirmed"}


@pytest.mark.parametrize("text", [None, "[]", "{", "{}"])
def test_a_folder_that_is_no_checkpoint_is_an_input_error(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        check_checkpoint(tmp_path)


def test_what_a_server_shows_settles_what_the_files_leave_open() -> None:
    open_point = Finding("frame-text", 2, "unknown", "a", "no code", "c", "d")
    wrong = Finding("rope-theta", 1, "different", "a", "b", "c", "d")
    live = Finding("video-live", None, "confirmed", "a", "b", "c", "d", settles=("frame-text", "rope-theta"))
    first, second, _ = settled([open_point, wrong, live])
    assert first.state == "confirmed" and "video-live" in first.found
    assert second.state == "different"
    failed = Finding("video-live", None, "different", "a", "b", "c", "d", settles=("frame-text",))
    assert settled([open_point, failed])[0].state == "unknown"
