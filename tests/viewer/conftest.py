"""A folder of recorded runs, and the viewer's app over it as this machine's browser would ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from keyeloop.agent.viewer.app import build_app
from tests.viewer.recorded import LOOKING, record, record_evil

PORT = 7353
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: ``looking`` and ``twin``, the same but for the answer; ``deeper/evil``; ``cut``, which has no end."""
    root = tmp_path_factory.mktemp("store") / "runs"
    for name, script in (("looking", LOOKING), ("twin", [*LOOKING[:-1], "Nothing [f3]."])):
        record(root, script=script).rename(root / name)
    (root / "deeper").mkdir()
    record_evil(root).rename(root / "deeper" / "evil")
    record(root, "Was it cut off?", video=None, script=["never"]).rename(root / "cut")
    journal = root / "cut" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    return root


@pytest.fixture
async def viewer(store: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the app without a network."""
    transport = httpx.ASGITransport(build_app(store, PORT), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        yield client
