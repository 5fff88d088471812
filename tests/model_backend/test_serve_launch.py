"""A planned server, started and watched: a listener in SGLang's place, real processes, real requests."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyeloop.model_backend.sglang.serve.launch import STOPPING, Stopped, running
from keyeloop.model_backend.sglang.serve.plan import Plan, make_plan
from keyeloop.model_backend.sglang.serve.settings import ServeSettings
from keyeloop.runtime.errors import BackendError, ConfigError
from tests.model_backend.environments import SPARSE, write_sglang
from tests.model_backend.test_serve_plan import free_port


def planned(site: Path, **told: Any) -> tuple[Plan, dict[str, str]]:
    environment = write_sglang(site, **told)
    plan = make_plan(ServeSettings("keye-tiny", device="cpu", port=free_port()), environment)
    assert not plan.problems
    return plan, environment


def quiet(waited_s: float, line: str) -> None:
    """Progress that nobody looks at."""


def test_it_waits_until_the_server_is_healthy_and_sparse(tmp_path: Path) -> None:
    plan, environment = planned(tmp_path, starts_in_s=1.0)
    told: list[tuple[float, str]] = []
    with running(plan, environment, lambda *progress: told.append(progress)) as server:
        assert server.ready_after_s >= 1.0 and server.sparse.kernels == "torch"
        key = Path(str(server.key_file)).read_text().strip()
        assert key == server.key and plan.config_file.stat().st_mode & 0o777 == 0o600
        assert plan.log.stat().st_mode & 0o777 == 0o600
    assert server.server.ended() is not None and not plan.config_file.exists()
    assert told and not any(key in line for _, line in told) and any(line for _, line in told)
    seen = json.loads((tmp_path / "sglang" / "seen.json").read_text())
    assert key not in json.dumps(seen), "neither arguments nor environment hold the key"
    assert plan.command is not None and seen["arguments"][1:] == list(plan.command.arguments[3:])
    assert seen["environment"]["SGLANG_VLM_CACHE_SIZE_MB"] == "40"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([{}], "runs without keyeloop's plugin"),
        ([], "runs without keyeloop's plugin"),
        ([{"keyeloop": SPARSE}, {}], "runs without keyeloop's plugin"),
        ([{"keyeloop": {**SPARSE, "sparse": False}}], r"not what was asked for \(sparse, exact\)"),
        (
            [{"keyeloop": SPARSE}, {"keyeloop": {**SPARSE, "indexer": "fp8"}}],
            r"not what was asked for \(sparse, exact\)",
        ),
    ],
)
def test_a_server_that_is_not_sparse_is_ended(tmp_path: Path, states: list[Any], said: str) -> None:
    plan, environment = planned(tmp_path, states=states)
    with pytest.raises(BackendError, match=said), running(plan, environment, quiet):
        raise AssertionError("it was called ready")
    assert not plan.config_file.exists()


def test_a_server_that_dies_first_is_told_with_its_last_words_and_a_cure(tmp_path: Path) -> None:
    plan, environment = planned(tmp_path, dies=True)
    environment["KEYELOOP_API_KEY"] = "a-given-key"
    said = "ended with code 1 before it was ready: give a smaller --context"
    with pytest.raises(BackendError, match=said) as told, running(plan, environment, quiet):
        raise AssertionError("it was called ready")
    assert "CUDA out of memory" in str(told.value) and str(plan.log) in str(told.value)
    assert "a-given-key" not in str(told.value) and "api_key=..." in str(told.value)


def test_a_server_that_dies_later_is_told(tmp_path: Path) -> None:
    plan, environment = planned(tmp_path, ends_when_asked=True)
    with (
        pytest.raises(BackendError, match="the server ended with code 137"),
        running(plan, environment, quiet) as server,
    ):
        server.wait()


@pytest.fixture
def heeding() -> Iterator[None]:
    """No signal is ignored, whatever started these tests."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeding")
@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("ready", [False, True], ids=["while it starts", "once it serves"])
def test_a_signal_stops_it(tmp_path: Path, number: signal.Signals, ready: bool) -> None:
    plan, environment = planned(tmp_path, starts_in_s=0 if ready else 600)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped) as stopped, running(plan, environment, starting(timer, ready)) as server:
        timer.start()
        server.wait()
    assert stopped.value.number == number and signal.getsignal(number) is signal.default_int_handler
    assert not plan.config_file.exists()


def starting(timer: threading.Timer, ready: bool) -> Callable[[float, str], None]:
    """Progress that sets the timer off, once, unless that is to happen when the server is ready."""

    def progress(waited_s: float, line: str) -> None:
        if not ready and not timer.ident:
            timer.start()

    return progress


@pytest.mark.usefixtures("heeding")
def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    plan, environment = planned(tmp_path)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with running(plan, environment, quiet) as server:
        os.kill(os.getpid(), signal.SIGHUP)
        assert server.server.ended(wait_s=0.3) is None


def test_a_problem_of_the_plan_stops_the_start(tmp_path: Path) -> None:
    plan = make_plan(ServeSettings("keye-tiny", device="cuda", port=free_port()), {**os.environ, "PATH": str(tmp_path)})
    with pytest.raises(ConfigError, match="no sglang in"), running(plan, os.environ, quiet):
        raise AssertionError("it was called ready")
