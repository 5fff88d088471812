"""What a Keye server on SGLang starts with, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from keyeloop.model_backend.sglang.plugin.settings import indexer_mode, keye_settings
from keyeloop.model_backend.sglang.plugin.spelling import register_model_override
from keyeloop.runtime.errors import ConfigError


def arguments(**changed: Any) -> SimpleNamespace:
    """A command line of SGLang's with its own defaults where the plugin looks."""
    usual: dict[str, Any] = {
        "attention_backend": None, "prefill_attention_backend": None, "decode_attention_backend": None,
        "page_size": None, "pp_size": 1, "disaggregation_mode": "null", "speculative_algorithm": None,
        "kv_cache_dtype": "auto", "enable_hierarchical_cache": False, "enable_dp_attention": False,
    }  # fmt: skip
    return SimpleNamespace(**{**usual, **changed})


def test_sparse_attention_and_single_slots_are_the_defaults() -> None:
    assert keye_settings(arguments(), None) == {"attention_backend": "keye_sa", "page_size": 1}


def test_a_page_size_of_the_user_stays() -> None:
    assert "page_size" not in keye_settings(arguments(page_size=64), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable_hierarchical_cache", True),
        ("enable_lmcache", True),
        ("enable_dp_attention", True),
        ("disaggregation_mode", "prefill"),
        ("disaggregation_mode", "decode"),
        ("speculative_algorithm", "EAGLE"),
        ("pp_size", 2),
        ("kv_cache_dtype", "fp8_e4m3"),
        ("attention_backend", "triton"),
        ("prefill_attention_backend", "flashinfer"),
        ("decode_attention_backend", "fa3"),
    ],
)
def test_what_would_answer_wrongly_is_refused_by_its_flag(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="--" + name.replace("_", "-")):
        keye_settings(arguments(**{name: value}), None)


def test_everything_refused_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--enable-hierarchical-cache .*; nor --pp-size 2 "):
        keye_settings(arguments(enable_hierarchical_cache=True, pp_size=2), None)


def test_the_indexer_is_exact_unless_fp8_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYELOOP_INDEXER", raising=False)
    assert indexer_mode() == "exact"
    monkeypatch.setenv("KEYELOOP_INDEXER", "fp8")
    assert indexer_mode() == "fp8"
    monkeypatch.setenv("KEYELOOP_INDEXER", "fp4")
    with pytest.raises(ConfigError, match="fp4"):
        indexer_mode()


def test_a_release_without_the_places_known_here_is_named_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyeloop.model_backend.sglang.plugin import spelling

    monkeypatch.setattr(spelling, "OVERRIDES", ("json", "keyeloop.no_such_module"))
    with pytest.raises(ImportError, match=r"register_model_override .*0\.5\.17"):
        register_model_override("Arch")
