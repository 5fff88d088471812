"""``keyeloop serve`` with real SGLang on a CPU: one command, an answer with its citation, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from keyeloop.agent.agent import Agent
from keyeloop.agent.cli.demo import bundled_question
from keyeloop.model_backend.openai_chat.backend import OpenAIChat
from tests.agent.test_cli_serve import server_processes
from tests.model_backend.test_serve_plan import free_port
from tests.model_backend.test_serve_process import gone, until

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(900), pytest.mark.usefixtures("sglang_here")]


def test_from_one_command_to_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, shown, pictures = free_port(), tmp_path / "shown", tmp_path / "pictures"
    command = [
        sys.executable, "-m", "keyeloop", "serve", "--model", "keye-tiny", "--device", "cpu", "--port", str(port),
        "--context-length", "8192", "--media-store", str(pictures),
    ]  # fmt: skip
    given = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with shown.open("w") as output, subprocess.Popen(command, env=given, stdout=output, stderr=output) as process:
        try:
            until(
                lambda: "Ctrl-C stops it" in shown.read_text() or process.poll() is not None, "it is not ready", 600.0
            )
            assert "sparse attention is on (index keys exact, reference kernels)" in shown.read_text(), (
                shown.read_text()
            )
            url, key = f"http://127.0.0.1:{port}/v1", (tmp_path / "keyeloop" / "server.key").read_text().strip()
            for path in ("/models", "/../server_info", "/../generate"):
                assert httpx.get(url + path, trust_env=False).status_code == 401, path
            monkeypatch.setenv("KEYELOOP_API_KEY", key)
            video, question, expected = bundled_question()
            answer = Agent(OpenAIChat(url), runs=tmp_path / "runs").run_sync(question, video=video)
            assert (answer.status, str(answer).strip()) == ("answered", expected)
            assert answer.citations and all(citation.seen for citation in answer.citations)
            assert [file for file in pictures.rglob("*") if file.is_file()], "no picture went by its name"
            processes = server_processes(port)
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 128 + signal.SIGTERM
            gone(processes)
        finally:
            process.kill()
