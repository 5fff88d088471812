"""``keyeloop serve`` as a command: what it prints, what it refuses, how it ends, also when it is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from keyeloop.agent.cli import main
from tests.model_backend.environments import write_nvidia_smi, write_sglang
from tests.model_backend.test_serve_plan import free_port
from tests.model_backend.test_serve_process import ENDS_WITHIN_S, gone, until

Serve = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
HEEDING = """
import signal
from keyeloop.agent.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def command(*arguments: str | Path) -> list[str]:
    """The command line in a new process, which heeds Ctrl-C also where this test's shell does not."""
    return [sys.executable, "-c", HEEDING, "serve", "--model", "keye-tiny", *map(str, arguments)]


def environment(site: Path, **told: object) -> dict[str, str]:
    found = write_sglang(site, **told)  # type: ignore[arg-type]
    return {**found, "PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'src'}"}


@contextmanager
def serving(site: Path, *arguments: str | Path, **told: object) -> Iterator[tuple[subprocess.Popen[str], int, Path]]:
    """A started command, its port and what it printed so far."""
    port, shown = free_port(), site / "shown"
    given = environment(site, **told)
    with shown.open("w") as output, subprocess.Popen(
        command("--device", "cpu", "--port", str(port), *arguments), env=given, stdout=output, text=True
    ) as process:  # fmt: skip
        try:
            yield process, port, shown
        finally:
            process.kill()


def server_processes(port: int) -> list[int]:
    """The listener that was started for a port, and the guard before it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parts = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"sglang.launch_server" in parts and str(port).encode() in parts:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=lambda value: str(value)
)
def test_it_serves_until_it_is_stopped_and_leaves_nothing(tmp_path: Path, how: signal.Signals, code: int) -> None:
    with serving(tmp_path, "--media-store", tmp_path / "pictures") as (process, port, shown):
        until(lambda: "Ctrl-C stops it" in shown.read_text(), "it never said that it is ready")
        text = shown.read_text()
        key_file = tmp_path / "state" / "keyeloop" / "server.key"
        assert "ready after" in text and f'export KEYELOOP_API_KEY="$(cat {key_file})"' in text
        assert f"--model http://127.0.0.1:{port}/v1" in text and key_file.read_text().strip() not in text
        headers = {"Authorization": f"Bearer {key_file.read_text().strip()}"}
        assert httpx.get(f"http://127.0.0.1:{port}/server_info", headers=headers, trust_env=False).status_code == 200
        assert (tmp_path / "pictures").is_dir()
        processes = server_processes(port)
        assert len(processes) == 2
        process.send_signal(how)
        assert process.wait(ENDS_WITHIN_S) == code
        gone(processes)
    assert ("stopped" in shown.read_text()) == (how != signal.SIGKILL)


def test_a_dry_run_prints_all_and_starts_nothing(tmp_path: Path) -> None:
    port = free_port()
    given = environment(tmp_path)
    run = subprocess.run(
        command("--device", "cpu", "--port", str(port), "--dry-run", "--", "--max-running-requests", "3"),
        env=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and not run.stderr
    lines = dict(line.split(None, 1) for line in run.stdout.splitlines())
    assert lines["by"].startswith(f"hand   a start writes {tmp_path}/state/keyeloop/serve-{port}.yaml")
    assert lines["model"].startswith("keye-tiny, 15,251,648 parameters")
    assert lines["versions"].startswith("sglang 0.5.21, torch 2.13.0+cpu")
    assert lines["fits"].startswith("32,768 tokens of context; 65,536 of cache")
    assert lines["command"].endswith("--max-running-requests 3") and f"--port {port}" in lines["command"]
    assert run.stdout.splitlines()[-1] == "ready to start; nothing was started"
    assert not (tmp_path / "state").exists() and not (tmp_path / "sglang" / "seen.json").exists()


def test_a_dry_run_tells_all_that_stands_in_the_way(tmp_path: Path) -> None:
    old = "0, GPU-1, Tesla T4, 15360, 15000, 7.5"
    given = {
        **environment(tmp_path, version="0.5.17", torch="2.13.0"),
        "PATH": write_nvidia_smi(tmp_path / "bin", [old]),
    }
    run = subprocess.run(
        command("--dry-run", "--port", str(free_port())), env=given, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    obstacles = [line for line in run.stdout.splitlines() if line.startswith("stands in the way")]
    assert "built for torch 2.11.0" in obstacles[0] and "'sglang==0.5.21'" in obstacles[0]
    assert "Tesla T4 has compute capability 7.5" in obstacles[1]


@pytest.fixture
def serve_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Serve:
    """Runs the command in this process, where no hub answers and no GPU is; its exit code, and what it said."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, value in {**environment(tmp_path, version="0.5.16"), "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        shown = capsys.readouterr()
        return int(str(ended.value.code)), shown.out, shown.err

    return run


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "start"])
@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("somebody/Keye", 1, "could not be fetched from the hub"),
        ("keye-vl-2.0-30b-a3b", 1, "could not be fetched from the hub"),
        ("no model", 2, "no model 'no model'"),
    ],
)
def test_every_obstacle_is_told_also_where_the_model_cannot_be_asked_for(
    serve_here: Serve, model: str, code: int, said: str, dry: list[str]
) -> None:
    """And the exit code is that of the first, with ``--dry-run`` and without."""
    ended, out, err = serve_here("--model", model, "--port", str(free_port()), *dry)
    for obstacle in (said, "sglang 0.5.16 is older than", "no NVIDIA GPU is visible here"):
        assert (out + err).count(obstacle) == 1, out + err
    assert ended == code and bool(err) != bool(dry)


def test_a_taken_port_ends_with_the_same_code_in_a_dry_run(serve_here: Serve) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = ["--model", "keye-tiny", "--device", "cpu", "--port", str(listener.getsockname()[1])]
        ended = [serve_here(*taken, *dry) for dry in (["--dry-run"], [])]
    assert [code for code, *_ in ended] == [2, 2]
    assert "address already in use" in ended[0][1] and "address already in use" in ended[1][2]


def test_a_dry_runs_command_can_be_run_by_hand(tmp_path: Path) -> None:
    port, key = free_port(), 'it\'s a "key"#1'.replace(" ", "_")
    given = {**environment(tmp_path), "KEYELOOP_API_KEY": key}
    run = subprocess.run(
        command("--device", "cpu", "--port", str(port), "--dry-run"),
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = dict(line.split(None, 1) for line in run.stdout.splitlines() if not line.startswith("by hand"))
    first = next(line for line in run.stdout.splitlines() if line.startswith("by hand")).partition("first: ")[2]
    assert not (tmp_path / "state").exists() and key not in run.stdout
    with subprocess.Popen(
        ["sh", "-c", f"{first} && exec env {lines['command']}"], env=given, stdout=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}/server_info"

            def answers() -> bool:
                assert process.poll() is None
                try:
                    asked = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
                except httpx.TransportError:
                    return False
                return asked.status_code == 200

            until(answers, "it does not serve")
        finally:
            process.kill()
    file = tmp_path / "state" / "keyeloop" / f"serve-{port}.yaml"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "told", "code", "said"),
    [
        (["--device", "tpu"], {}, 2, "--device tpu: unknown; take auto or cuda or cpu"),
        (["--device", "cpu", "--context-length", "40000"], {}, 2, "--context-length 40,000 does not fit: 32,768 is"),
        (["--device", "cpu"], {"dies": True}, 1, "ended with code 1 before it was ready: give a smaller"),
        (["--device", "cpu"], {"states": [{}]}, 1, "runs without keyeloop's plugin"),
    ],
)
def test_a_start_that_fails_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], told: dict[str, object], code: int, said: str
) -> None:
    given = environment(tmp_path, **told)
    run = subprocess.run(
        command("--port", str(free_port()), *arguments), env=given, capture_output=True, text=True, check=False
    )
    assert run.returncode == code and said in run.stderr, run.stderr
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("error: ")


def test_the_terminal_gets_one_moving_line(tmp_path: Path) -> None:
    import pty

    reading, writing = pty.openpty()
    given = {**environment(tmp_path, starts_in_s=1.5), "TERM": "xterm", "COLUMNS": "90"}
    with subprocess.Popen(
        command("--device", "cpu", "--port", str(free_port())), env=given, stdout=writing, stderr=writing
    ) as process:
        os.close(writing)
        text, deadline = b"", time.monotonic() + ENDS_WITHIN_S
        try:
            while b"Ctrl-C stops it" not in text:
                assert time.monotonic() < deadline, text
                text += os.read(reading, 65_536)
            process.send_signal(signal.SIGINT)
            assert process.wait(ENDS_WITHIN_S) == 130
        finally:
            process.kill()
            os.close(reading)
    assert b"1 s  " in text and b"\x1b[2K" in text


def test_its_help_names_the_options(tmp_path: Path) -> None:
    run = subprocess.run(
        [*command()[:4], "--help"], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    for option in ("--quantization", "--tensor-parallel", "--context-length", "--host", "--port", "--dry-run"):
        assert option in run.stdout
