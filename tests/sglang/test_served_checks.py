"""A server says that it serves Keye as it should, and one that could not does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sglang.served import Served, start

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(300), pytest.mark.usefixtures("sglang_here")]


def test_the_status_tells_the_sparse_path_from_the_running_objects(served: Served) -> None:
    status = served.status()
    assert status["sparse"] is True
    assert (status["indexer"], status["topk"], status["kernels"]) == ("exact", 64, "reference")
    assert (status["indexer_heads"], status["indexer_head_dim"]) == (4, 64)
    assert (status["rope_theta"], status["mrope_section"]) == (10000.0, [4, 6, 6])
    assert status["index_cache_bytes"] == 8 * 64 * 4 * (20_000 + 1)


def test_what_would_serve_wrongly_is_refused_by_name(tmp_path: Path) -> None:
    flags = ["--enable-hierarchical-cache", "--disaggregation-mode", "prefill", "--attention-backend", "torch_native"]
    log = ending(flags, {}, tmp_path)
    assert "keyeloop's Keye plugin does not support --enable-hierarchical-cache" in log
    assert "--disaggregation-mode prefill" in log
    assert "--attention-backend torch_native" in log


def test_sglang_without_the_plugin_does_not_serve_keye(tmp_path: Path) -> None:
    log = ending([], {"SGLANG_PLUGINS": "another"}, tmp_path)
    assert "KeyeVL2" in log
    assert "fired up" not in log


def ending(flags: list[str], environment: dict[str, str], folder: Path) -> str:
    """The log of a server that ends by itself with an error."""
    server, _ = start(folder / "server.log", flags, environment)
    with server:
        code = server.ended(120)
    log = server.log.read_text(errors="replace")
    assert code, f"ended with {code}:\n{log[-3000:]}"
    return log
