"""What the viewer refuses: other hosts and origins, other methods, everything that is not of a run."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import httpx
import pytest

from keyeloop.agent.viewer.app import build_app
from keyeloop.agent.viewer.serving import HOST, bind
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.journal import JOURNAL
from tests.viewer.conftest import PORT, URL


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:7353", ""]
)
async def test_another_host_is_refused(viewer: httpx.AsyncClient, host: str) -> None:
    assert (await viewer.get("/", headers={"host": host})).status_code == 403


@pytest.mark.parametrize("host", [f"localhost:{PORT}", f"LOCALHOST:{PORT}", f"[::1]:{PORT}"])
async def test_its_own_names_are_answered(viewer: httpx.AsyncClient, host: str) -> None:
    assert (await viewer.get("/", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://127.0.0.1:{PORT}"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ],
)
async def test_pages_of_others_are_refused(viewer: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await viewer.get("/", headers=headers)).status_code == 403


async def test_its_own_pages_and_links_from_elsewhere_are_answered(viewer: httpx.AsyncClient) -> None:
    for headers in ({"origin": URL}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}):
        assert (await viewer.get("/", headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_changed(viewer: httpx.AsyncClient, method: str) -> None:
    assert (await viewer.request(method, "/run/looking")).status_code == 405


async def test_every_answer_forbids_scripts_of_others(viewer: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/run/looking",
        "/static/run.js",
        "/nothing",
        "/run/looking/-/event/0",
        "/run/looking/-/source/video-1",
    ):
        headers = (await viewer.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert (
            headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
        )


@pytest.mark.parametrize(
    "path",
    [
        "/run/../secret",
        "/run/%2e%2e/secret",
        "/run/looking/../../secret",
        "/run/..%2fsecret",
        "/run//etc",
        "/run/looking/-/media/../../journal.jsonl",
        "/run/looking/-/media/" + "0" * 64,
        "/run/looking/-/media/..%2f..%2fjournal.jsonl",
        "/run/looking/-/source/..%2fjournal.jsonl",
        "/run/looking/-/source//etc/passwd",
        "/run/linked",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/__init__.py",
        "/run/looking/journal.jsonl",
    ],
)
async def test_no_path_leads_out_of_the_runs(viewer: httpx.AsyncClient, store: Path, path: str) -> None:
    outside = store.parent / "secret"
    if not outside.exists():
        shutil.copytree(store / "cut", outside)
        (store / "linked").symlink_to(outside)
    answer = await viewer.get(httpx.URL(URL).copy_with(raw_path=path.encode()))
    assert answer.status_code == 404 and "cut off?" not in answer.text


@pytest.mark.parametrize("suffix", ["", ".mp4", ".html"])
async def test_a_record_cannot_name_a_file_to_be_given_out(store: Path, tmp_path: Path, suffix: str) -> None:
    secret = tmp_path / f"secret{suffix}"
    secret.write_text("the key")
    folder = tmp_path / "runs" / "made"
    shutil.copytree(store / "looking", folder)
    journal = folder / JOURNAL
    head, _, rest = journal.read_bytes().partition(b"\n")
    begin = json.loads(head)
    del begin["crc32"]  # whoever makes a record can leave the seal out
    begin["inputs"][0]["path"] = str(secret)
    journal.write_bytes(json.dumps(begin).encode() + b"\n" + rest)
    transport = httpx.ASGITransport(build_app(tmp_path / "runs", PORT))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        assert (await client.get("/run/made")).status_code == 200
        answer = await client.get("/run/made/-/source/video-1")
    assert answer.status_code == 404 and "the key" not in answer.text


def test_it_listens_on_the_loopback_address_only() -> None:
    with bind(0) as listener:
        host, port = listener.getsockname()
        assert host == HOST == "127.0.0.1"
        with pytest.raises(InputError, match=f"cannot use port {port} of 127.0.0.1"):
            bind(port)
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(0.2)
            other.connect(("127.0.0.2", port))
