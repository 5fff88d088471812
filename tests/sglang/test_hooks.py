"""What the plugin changes in SGLang, and that it leaves other models alone."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.runtime.errors import ConfigError

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(300), pytest.mark.usefixtures("sglang_here")]


@pytest.fixture
def hooks() -> Any:
    """The module, whose import brings SGLang's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from keyeloop.model_backend.sglang.plugin import hooks, pool

        assert pool
    return hooks


@pytest.fixture
def keye() -> Any:
    """SGLang's cache configurator as far as the plugin looks at it, for keye-tiny."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoConfig

        from keyeloop.model_backend.sglang.plugin.config import register_config

        register_config()
        config = AutoConfig.from_pretrained(model_folder(EMBEDDED_MODEL))
    return SimpleNamespace(model_config=SimpleNamespace(hf_config=config, dtype=torch.bfloat16))


@pytest.mark.parametrize(("mode", "bytes_each"), [("exact", 2 * 64), ("fp8", 64 + 4)])
def test_index_keys_count_in_the_memory_budget(
    mode: str, bytes_each: int, hooks: Any, keye: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYELOOP_INDEXER", mode)
    assert hooks.count_index_keys(1000, None, keye, 8) == 1000 + 8 * bytes_each


def test_a_pool_is_built_only_where_its_index_keys_were_counted(hooks: Any, keye: Any) -> None:
    with pytest.raises(ConfigError, match="_compute_cell_size"):
        hooks.build_keye_pool(lambda *_, **settings: settings, keye, mha_pool_class=object)
    hooks.count_index_keys(1000, None, keye, 8)
    settings = hooks.build_keye_pool(lambda *_, **settings: settings, keye, mha_pool_class=object)
    made = settings["mha_pool_class"]
    assert isinstance(made, partial) and made.func.__name__ == "KeyePool"
    assert made.keywords == {"index_dim": 64, "mode": "exact", "index_dtype": torch.bfloat16}


def test_other_models_keep_everything(hooks: Any) -> None:
    other = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(architectures=["Qwen3ForCausalLM"])))
    assert hooks.count_index_keys(1000, None, other, 8) is None
    settings = hooks.build_keye_pool(lambda *_, **settings: settings, other, mha_pool_class=object)
    assert settings == {"mha_pool_class": object}


def test_sglang_keeps_its_bookkeeping_off_triton_where_there_is_no_gpu(
    hooks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hooks.without_triton(True, "keye_sa") is False
    assert hooks.without_triton(True, "flashinfer") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hooks.without_triton(True, "keye_sa") is None


def test_a_config_that_transformers_reads_otherwise_is_refused(keye: Any) -> None:
    from keyeloop.model_backend.sglang.plugin.config import keye_config

    config = keye.model_config.hf_config
    assert keye_config(config).rope_theta == 10000.0
    config.rope_theta = 1e6
    with pytest.raises(ConfigError, match=r"rope_theta is 10000\.0, yet SGLang read 1000000\.0"):
        keye_config(config)


@pytest.mark.parametrize(
    ("columns", "ranks", "refused"),
    [
        (192, 2, None),
        (192, 4, "num_key_value_heads is 2, and SGLang made 4 of it"),
        (96, 2, "moe_intermediate_size is 96, and SGLang made 128 of it"),
    ],
)
def test_sizes_that_sglang_pads_for_its_ranks_are_refused_by_name(
    columns: int, ranks: int, refused: str | None, keye: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt.configs import update_config
    from transformers import AutoConfig

    from keyeloop.model_backend.sglang.plugin.config import keye_config

    written = json.loads((model_folder(EMBEDDED_MODEL) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, "moe_intermediate_size": columns}))
    config = AutoConfig.from_pretrained(tmp_path)
    model = SimpleNamespace(
        hf_config=config, hf_text_config=config, quantization=None, get_total_num_kv_heads=lambda: 2,
        num_key_value_heads=2, num_attention_heads=8, head_dim=config.head_dim, hidden_size=config.hidden_size,
    )  # fmt: skip
    monkeypatch.setattr(update_config, "may_get_weight_block_size", lambda *_: None)  # else it imports all its models
    update_config.adjust_config_with_unaligned_cpu_tp(model, None, ranks)
    if refused is None:
        assert keye_config(config).moe_intermediate_size == columns
        return
    with pytest.raises(ConfigError, match=refused):
        keye_config(config)


def test_another_plugin_in_the_same_place_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.sglang.plugin import register

    monkeypatch.setenv("SGLANG_EXTERNAL_MODEL_PACKAGE", "somebody.models")
    with pytest.raises(ConfigError, match="somebody"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register()


def test_a_status_that_fails_says_so_and_ends_no_server(hooks: Any, keye: Any) -> None:
    answer = SimpleNamespace(internal_state={})
    keye.token_to_kv_pool = None
    hooks.add_status(answer, SimpleNamespace(tp_worker=SimpleNamespace(model_runner=keye)))
    assert answer.internal_state["keyeloop"]["sparse"] is False
    assert "attn_backend" in answer.internal_state["keyeloop"]["problem"]
