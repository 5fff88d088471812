"""A model of the hub, from a hub on loopback: weighed first, downloaded, resumed, and used again without it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyeloop.model_backend.keye.export import save_folder
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.sglang.serve import checkpoint as checkpoints
from keyeloop.model_backend.sglang.serve import hub
from keyeloop.model_backend.sglang.serve.checkpoint import fetched, find_checkpoint
from keyeloop.runtime.errors import ConfigError, InputError, OperatorError
from tests.model_backend.hub_server import COMMIT, Hub, hub_serving
from tests.model_backend.keye_models import small_model

ROOT = Path(__file__).resolve().parents[2]
NAME = "somebody/Keye-small"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token and no cache of this user; short waits between tries."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of a cut download is whole pieces
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A small checkpoint, with things that serving does not need."""
    folder = tmp_path / "made"
    save_folder(small_model(), folder)
    tokenizer = model_folder(EMBEDDED_MODEL) / "tokenizer.json"
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**made, "tokenizer.json": tokenizer.read_bytes(), "modeling_keye.py": b"raise SystemExit", "a/b.json": b""}


@pytest.fixture
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    with hub_serving(Hub(NAME, files)) as served:
        yield served


def names(files: dict[str, bytes]) -> set[str]:
    return set(files) - {"modeling_keye.py", "a/b.json"}


def test_it_is_weighed_before_it_is_downloaded(serving: Hub) -> None:
    found = find_checkpoint(NAME, endpoint=serving.endpoint)
    assert found.folder is None and found.on_hub is not None and found.name == "Keye-small"
    wanted = names(serving.files)
    assert {file.name for file in found.on_hub.files} == wanted
    assert found.on_hub.size_bytes == sum(len(serving.files[name]) for name in wanted)
    assert {name for name, _ in serving.asked} == {"config.json"}
    assert found.description.parameters > 0 and found.description.stored_bytes is None


def test_it_is_downloaded_once_and_found_again(serving: Hub) -> None:
    here = fetched(find_checkpoint(NAME, endpoint=serving.endpoint), endpoint=serving.endpoint)
    assert here.folder is not None and here.folder.name == COMMIT
    assert {path.name: path.read_bytes() for path in here.folder.iterdir()} == {
        name: serving.files[name] for name in names(serving.files)
    }, "code is neither fetched nor run"
    count = len(serving.asked)
    again = find_checkpoint(NAME, endpoint=serving.endpoint)
    assert again.folder == here.folder and len(serving.asked) == count


def test_without_the_hub_the_earlier_download_serves(serving: Hub) -> None:
    folder = fetched(find_checkpoint(NAME, endpoint=serving.endpoint), endpoint=serving.endpoint).folder
    found = find_checkpoint(NAME, endpoint="http://127.0.0.1:9")
    assert found.folder == folder and "could not be fetched" in found.remark


DOWNLOADING = """
import signal, sys
import huggingface_hub.constants as constants
signal.signal(signal.SIGINT, signal.default_int_handler)
constants.HF_HUB_CACHE, constants.HF_HUB_DISABLE_XET, constants.DOWNLOAD_CHUNK_SIZE = sys.argv[2], True, 1000
from keyeloop.model_backend.sglang.serve.checkpoint import fetched, find_checkpoint
print(fetched(find_checkpoint(sys.argv[3], endpoint=sys.argv[1]), endpoint=sys.argv[1]).folder)
"""


def test_a_cut_download_goes_on_where_it_stopped(files: dict[str, bytes]) -> None:
    weights = next(name for name in files if name.endswith(".safetensors"))
    with hub_serving(Hub(NAME, files, cut_after={weights: [60_000]})) as served:
        here = fetched(find_checkpoint(NAME, endpoint=served.endpoint), endpoint=served.endpoint)
    assert here.folder is not None and (here.folder / weights).read_bytes() == files[weights]
    assert [asked for name, asked in served.asked if name == weights] == [None, "bytes=60000-"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_download_keeps_its_whole_files(files: dict[str, bytes], tmp_path: Path, how: signal.Signals) -> None:
    weights = next(name for name in files if name.endswith(".safetensors"))
    files = {name: files[name] for name in sorted(files, key=lambda name: name == weights)}  # the weights last
    hold = threading.Event()
    with hub_serving(Hub(NAME, files, hold_after={weights: (60_000, hold)})) as served:
        command = [sys.executable, "-c", DOWNLOADING, served.endpoint, str(tmp_path / "hub"), NAME]
        with subprocess.Popen(command, cwd=ROOT / "src", stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size >= 50_000 for path in (tmp_path / "hub").rglob("*.incomplete")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(how)
            process.wait(10)  # while the hub still holds its answer back
        hold.set()
        before = len(served.asked)
        here = fetched(find_checkpoint(NAME, endpoint=served.endpoint), endpoint=served.endpoint)
    assert here.folder is not None and (here.folder / weights).read_bytes() == files[weights]
    assert [name for name, _ in served.asked[before:]] == [weights]


def test_the_disk_is_looked_at_first(serving: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_checkpoint(NAME, endpoint=serving.endpoint)
    monkeypatch.setattr(checkpoints, "SPARE_BYTES", 1 << 60)
    with pytest.raises(OperatorError, match=r"0\.0 GB are to be downloaded and .* GB free: make room, or set HF_HOME"):
        fetched(found, endpoint=serving.endpoint)
    assert {name for name, _ in serving.asked} == {"config.json"}


def test_what_is_no_model_is_told(files: dict[str, bytes]) -> None:
    elsewhere = pytest.raises(InputError, match=r"no model 'somebody/else' on the hub.*HF_TOKEN")
    with hub_serving(Hub(NAME, files)) as served, elsewhere:
        find_checkpoint("somebody/else", endpoint=served.endpoint)
    gguf = {"config.json": files["config.json"], "model.gguf": b"GGUF"}
    with hub_serving(Hub(NAME, gguf)) as served, pytest.raises(InputError, match=r"no .*safetensors.*llama-server"):
        find_checkpoint(NAME, endpoint=served.endpoint)
    other = {**files, "config.json": b'{"architectures": ["Qwen3VLMoeForConditionalGeneration"]}'}
    with hub_serving(Hub(NAME, other)) as served, pytest.raises(ConfigError, match=r"Qwen3VLMoe.*has no sa_config, no"):
        find_checkpoint(NAME, endpoint=served.endpoint)


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./somewhere", "~/x", "../x/y", "a b/c"])
def test_what_is_neither_folder_nor_name_is_told_without_asking_anybody(name: str) -> None:
    with pytest.raises(InputError, match=r"no model .*name keye-tiny, the folder of a checkpoint, or one of the hub"):
        find_checkpoint(name, endpoint="http://127.0.0.1:9")


def test_a_hub_that_does_not_answer_is_told() -> None:
    with pytest.raises(OperatorError, match=r"could not be fetched from the hub: .*run the same command again"):
        find_checkpoint(NAME, endpoint="http://127.0.0.1:9")
    assert hub.cached_folder(NAME) is None
