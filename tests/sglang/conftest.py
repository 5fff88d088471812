"""One server for all tests, and the reference that it is held against."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.runtime.media import MediaStore
from tests.sglang.prompts import Painter, Reference
from tests.sglang.served import Served, start, wait_until_up


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MediaStore:
    """Where the tests' pictures lie."""
    return MediaStore(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def painter(store: MediaStore) -> Painter:
    """Makes pictures and prompts."""
    return Painter(store, KeyeTokenizer(model_folder(EMBEDDED_MODEL) / "tokenizer.json"))


@pytest.fixture(scope="session")
def reference(store: MediaStore) -> Reference:
    """keye-tiny in torch, indexer mode exact."""
    return Reference("exact", store)


@pytest.fixture(scope="session")
def sglang_here() -> None:
    """Skips where there is no SGLang."""
    from importlib.util import find_spec

    if find_spec("sglang") is None:
        pytest.skip("no SGLang in this environment; make one with .ci/sglang_environment")


@pytest.fixture(scope="session")
def served(sglang_here: None, store: MediaStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """keye-tiny behind SGLang and keyeloop's plugin, indexer mode exact."""
    yield from serving(tmp_path_factory.mktemp("served") / "server.log", store)


@pytest.fixture(scope="module")
def served_fp8(sglang_here: None, store: MediaStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same with the indexer's shipped number format."""
    yield from serving(tmp_path_factory.mktemp("served") / "fp8.log", store, {"KEYELOOP_INDEXER": "fp8"})


@pytest.fixture(scope="module")
def served_by_two(sglang_here: None, store: MediaStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same with its weights and heads split over two processes."""
    cores = sorted(os.sched_getaffinity(0))
    bound = {"SGLANG_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"}
    yield from serving(tmp_path_factory.mktemp("served") / "two.log", store, bound, ["--tp-size", "2"])


def serving(
    log: Path, store: MediaStore, environment: Mapping[str, str] | None = None, flags: Sequence[str] = ()
) -> Iterator[Served]:
    """A server for as long as tests need it."""
    server, url = start(log, flags, environment)
    with server:
        wait_until_up(server, url)
        running = Served(url, store)
        yield running
        running.http.close()
