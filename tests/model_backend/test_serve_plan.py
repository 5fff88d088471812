"""The plan of a server: all obstacles at once, the exact command, ports, keys, and what GPUs there are."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.sglang.serve.checkpoint import find_checkpoint
from keyeloop.model_backend.sglang.serve.gpus import read_gpus
from keyeloop.model_backend.sglang.serve.key import given_key, kept_key, write_private
from keyeloop.model_backend.sglang.serve.plan import Plan, make_plan
from keyeloop.model_backend.sglang.serve.port import check_port, is_loopback, url
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.runtime.errors import CheckpointError, ConfigError, InputError
from tests.model_backend.environments import write_nvidia_smi, write_sglang
from tests.model_backend.keye_models import small_model

H200 = "{}, GPU-{}a, NVIDIA H200, 143771, 143262, 9.0"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def planned(site: Path, settings: ServeSettings, gpus: int = 0, **environment: str) -> Plan:
    """A plan in an environment with a listening SGLang and that many H200."""
    outer = write_sglang(site)
    path = write_nvidia_smi(site / "bin", [H200.format(number, number) for number in range(gpus)])
    return make_plan(settings, {**outer, **({"PATH": path} if gpus else {}), **environment})


def test_keye_tiny_on_a_cpu(tmp_path: Path) -> None:
    port = free_port()
    plan = planned(tmp_path, ServeSettings("keye-tiny", device="cpu", port=port), KEYELOOP_API_KEY="0123456789")
    assert not plan.problems and plan.command is not None and plan.room is not None
    line = plan.command.shell()
    for part in (
        "SGLANG_USE_CPU_ENGINE=1", "KEYELOOP_INDEXER=exact", "SGLANG_VLM_CACHE_SIZE_MB=40", "-m sglang.launch_server",
        f"--model-path {model_folder(EMBEDDED_MODEL)} ", "--served-model-name keye-tiny", "--host 127.0.0.1",
        f"--port {port}", "--device cpu", "--context-length 32768", "--dtype float32", "--max-total-tokens 65536",
        "--tool-call-parser qwen25", "--reasoning-parser qwen3-thinking", "--enable-cache-report",
    ):  # fmt: skip
        assert part in line, part
    assert "0123456789" not in line and "KEYELOOP_MEDIA_STORE" not in line
    given = plan.command.environment({"KEYELOOP_API_KEY": "0123456789", "KEYELOOP_MODEL": "x", "HOME": "/h"})
    assert "KEYELOOP_API_KEY" not in given and "KEYELOOP_MODEL" not in given and given["HOME"] == "/h"


def test_the_published_model_on_two_gpus(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    settings = ServeSettings(
        "keye-tiny", device="cuda", tensor_parallel=2, quantization="fp8", context_tokens=8192, index="fp8",
        media_store=folder, port=free_port(), memory_share=0.8, extra=("--max-running-requests", "8"),
    )  # fmt: skip
    plan = planned(tmp_path / "site", settings, gpus=2, SGLANG_PLUGINS="other")
    assert [str(problem) for problem in plan.problems] == [
        "torch 2.13.0+cpu is built without CUDA: install sglang in an environment of its own, which brings the right "
        "torch, or serve with --device cpu"
    ]
    assert plan.command is not None
    line = plan.command.shell()
    for part in (
        "--tp-size 2", "--quantization fp8", "--context-length 8192", "--mem-fraction-static 0.800", "--device cuda",
        f"KEYELOOP_MEDIA_STORE={folder}", "KEYELOOP_INDEXER=fp8", "SGLANG_PLUGINS=other,keyeloop",
    ):  # fmt: skip
        assert part in line, part
    assert line.endswith("--max-running-requests 8") and "--max-total-tokens" not in line


def test_an_older_release_gets_a_smaller_share(tmp_path: Path) -> None:
    """It does not take the cache of pictures out of the share itself."""
    outer = write_sglang(tmp_path, version="0.5.17", torch="2.11.0+cu130")
    outer["PATH"] = write_nvidia_smi(tmp_path / "bin", [H200.format(0, 0)])
    settings = ServeSettings("keye-tiny", port=free_port(), picture_cache_mib=14_326)
    plan = make_plan(settings, outer)
    assert not plan.problems and plan.device == "cuda" and plan.command is not None
    assert "--mem-fraction-static 0.750" in plan.command.shell()


def test_everything_in_the_way_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        settings = ServeSettings("keye-tiny", device="cuda", port=port, memory_share=2)
        plan = make_plan(settings, {**os.environ, "PATH": str(tmp_path)})
    told = [str(problem) for problem in plan.problems]
    obstacles = ["memory-share", "cannot listen", "no sglang", "no NVIDIA GPU"]
    assert len(told) == len(obstacles) and all(part in one for part, one in zip(obstacles, told, strict=True)), told
    assert plan.command is None


def test_other_machines_get_no_files_and_are_remarked_on(tmp_path: Path) -> None:
    settings = ServeSettings("keye-tiny", device="cpu", host="0.0.0.0", port=free_port(), media_store=tmp_path)
    plan = planned(tmp_path / "site", settings)
    assert any("--media-store is for clients on this machine" in str(problem) for problem in plan.problems)
    assert any("reached by other machines" in remark for remark in plan.remarks)
    assert plan.url == f"http://127.0.0.1:{settings.port}"


def test_a_taken_port_names_a_free_one() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port}: address already in use; give --port (\d+), which") as told:
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", int(str(told.value).split("--port ")[1].split(",")[0]))
    check_port("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 8000), ("127.0.0.1", 0), ("127.0.0.1", 70_000)])
def test_where_nobody_can_listen_is_told(host: str, port: int) -> None:
    with pytest.raises(InputError, match=f"cannot listen on {host}, port {port}: .*; give --host and --port"):
        check_port(host, port)


def test_addresses() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "name")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    assert url("::", 1) == "http://[::1]:1" and url("0.0.0.0", 1) == "http://127.0.0.1:1"


def test_a_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    key, file = kept_key(tmp_path / "state")
    assert kept_key(tmp_path / "state") == (key, file) and len(key) >= 43
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o077 == 0
    file.chmod(0o644)
    with pytest.raises(InputError, match="can be read by others: chmod 600"):
        kept_key(tmp_path / "state")
    write_private(file, "other-key\n")
    assert kept_key(tmp_path / "state")[0] == "other-key" and file.stat().st_mode & 0o777 == 0o600


def test_a_given_key_is_taken_and_a_bad_one_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789\n")
    assert given_key({"KEYELOOP_API_KEY": "abcdefgh"}, file) == "0123456789"
    assert given_key({"KEYELOOP_API_KEY": "abcdefgh"}, None) == "abcdefgh" and given_key({}, None) is None
    for bad in ("short", "with white space", "accented-ééé"):
        with pytest.raises(InputError, match="8 to 512 printable") as told:
            given_key({"KEYELOOP_API_KEY": bad}, None)
        assert bad not in str(told.value)
    with pytest.raises(InputError, match="cannot be read"):
        given_key({}, tmp_path / "nowhere")


def test_gpus_as_a_server_would_see_them(tmp_path: Path) -> None:
    rows = ["0, GPU-00a, NVIDIA H200, 143771, 143262, 9.0", "1, GPU-11b, NVIDIA L4, 23034, 22574, 8.9"]
    path = write_nvidia_smi(tmp_path, rows)
    both = read_gpus({"PATH": path})
    assert [(gpu.name, gpu.total_bytes >> 20, gpu.capability) for gpu in both] == [
        ("NVIDIA H200", 143_771, (9, 0)), ("NVIDIA L4", 23_034, (8, 9)),
    ]  # fmt: skip
    for visible, seen in (("1,0", [1, 0]), ("GPU-11", [1]), ("", []), ("0,7,1", [0]), ("-1", [])):
        assert [gpu.index for gpu in read_gpus({"PATH": path, "CUDA_VISIBLE_DEVICES": visible})] == seen
    assert read_gpus({"PATH": str(tmp_path / "nowhere")}) == ()
    write_nvidia_smi(tmp_path, ["NVIDIA-SMI has failed because it could not communicate with the driver"])
    with pytest.raises(ConfigError, match="mend the NVIDIA driver"):
        read_gpus({"PATH": path})


def test_what_is_no_keye_checkpoint_is_told_with_all_that_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with pytest.raises(InputError, match=r"no config\.json, no tokenizer\.json, no weights"):
        find_checkpoint(str(folder))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 1}))
    with pytest.raises(ConfigError, match="of LlamaForCausalLM, has no sa_config, no vision_config, no image_token_id"):
        find_checkpoint(str(folder))
    save_folder(small_model(), folder)
    with pytest.raises(InputError, match=r"is no Keye checkpoint: no tokenizer\.json; download"):
        find_checkpoint(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    found = find_checkpoint(str(folder))
    assert found.name == "keye-other" and found.folder == folder
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"1 of 1 weight files missing: model-1\.safetensors"):
        find_checkpoint(str(folder))
