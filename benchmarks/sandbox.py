"""How fast sandboxes are: ours beside a Jupyter kernel and llm-sandbox, on the same snippets and one machine.

Run ``PYTHONPATH=src python benchmarks/sandbox.py``: prints a table and writes ``benchmarks/results/sandbox.json``. A
row whose engine or package (``jupyter_client`` and ``ipykernel``; ``llm-sandbox``) is not there is left out, with the
reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandbox_peers import CALL, STATE, Jupyter, LlmSandbox, Subject, descendants, image_with_shell, owned, resident_kib

from keyeloop.sandbox import Sandbox, SandboxPool, SandboxSpec, availability, open_sandbox

RESULT = Path(__file__).resolve().parent / "results" / "sandbox.json"
FIRST = "print(1)"
PICTURE = "from PIL import Image\nImage.effect_noise((640, 480), 50)"
"""About 300 kB as PNG, the same for all."""
SETTLE_S = 1.0


@dataclass(frozen=True)
class Row:
    """Medians, in milliseconds and MiB; None where a subject has no such thing."""

    name: str
    cold_ms: float
    warm_ms: float | None
    call_ms: float
    call_p95_ms: float
    picture_ms: float | None
    memory_mib: float | None


class Ours:
    """A sandbox of this package."""

    call = CALL

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def run(self, code: str) -> str:
        result = self._sandbox.exec(code)
        assert result.status == "ok", result
        return result.stdout

    def picture(self, code: str) -> int:
        return len(self._sandbox.exec(code).displays[0].data["image/png"])

    def pids(self) -> list[int]:
        uid = self._sandbox.isolation.uid
        if self._sandbox.isolation.boundary == "gvisor":
            return []  # its processes have one uid for all sandboxes
        return descendants(os.getpid()) if uid == os.geteuid() else owned(uid)

    def close(self) -> None:
        self._sandbox.close()


def measure(name: str, make: Callable[[], Subject], options: argparse.Namespace, warm_ms: float | None) -> Row:
    """All figures of one subject."""
    cold = []
    for _ in range(options.starts):
        begun_s = time.perf_counter()
        subject = make()
        assert subject.run(FIRST).strip() == "1"
        cold.append(time.perf_counter() - begun_s)
        subject.close()
    subject = make()
    try:
        subject.run(FIRST)
        time.sleep(SETTLE_S)
        found = subject.pids()
        memory_mib = sum(map(resident_kib, found)) / 1024 if found else None
        subject.run(STATE)
        calls = sorted(timed(lambda: subject.run(subject.call), options.calls))
        picture_ms = None
        if subject.picture(PICTURE):
            picture_ms = 1000 * statistics.median(timed(lambda: subject.picture(PICTURE), options.pictures))
    finally:
        subject.close()
    return Row(
        name, 1000 * statistics.median(cold), warm_ms, 1000 * statistics.median(calls),
        1000 * calls[int(len(calls) * 0.95)], picture_ms, memory_mib,
    )  # fmt: skip


def timed(act: Callable[[], object], times: int) -> list[float]:
    """Seconds of each."""
    taken = []
    for _ in range(times):
        begun_s = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun_s)
    return taken


def warm_start_ms(engine: str, times: int) -> float:
    """From asking a full pool, libraries imported, to the output of the first execution."""
    taken = []
    with SandboxPool(SandboxSpec(), engine) as pool:
        for _ in range(times):
            assert pool.fill()
            begun_s = time.perf_counter()
            with pool.take() as sandbox:
                assert sandbox.exec(FIRST).stdout == "1\n"
                taken.append(time.perf_counter() - begun_s)
    return 1000 * statistics.median(taken)


def rows(options: argparse.Namespace) -> Iterator[Row | str]:
    """A row for each subject, or why there is none."""
    for engine in ("bubblewrap", "docker", "runsc"):
        found = availability(engine=engine)
        if not found.ok:
            yield f"{engine}: {found.reason}"
            continue
        with stopping_on_failure(engine) as said:
            warm_ms = warm_start_ms(engine, options.starts)
            yield measure(engine, lambda engine=engine: Ours(open_sandbox(engine=engine)), options, warm_ms)  # type: ignore[misc]
        yield from said
    with stopping_on_failure("Jupyter kernel") as said:
        yield measure("Jupyter kernel", Jupyter, options, None)
    yield from said
    if not availability(engine="docker").ok:
        yield "llm-sandbox: no Docker daemon with our image"
        return
    with stopping_on_failure("llm-sandbox") as said:
        with_shell = image_with_shell()
        yield measure("llm-sandbox", lambda: LlmSandbox(with_shell), options, None)
    yield from said


@contextmanager
def stopping_on_failure(name: str) -> Iterator[list[str]]:
    """What is not installed, or fails, costs its own row only."""
    said: list[str] = []
    try:
        yield said
    except Exception as error:
        said.append(f"{name}: {type(error).__name__}: {str(error)[:160]}")


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=20)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    found = list(rows(options))
    print(f"{'':16}{'cold ms':>9}{'warm ms':>9}{'call ms':>9}{'p95':>9}{'image ms':>10}{'MiB':>7}")
    for row in found:
        if isinstance(row, str):
            print(row)
            continue
        figures = (row.cold_ms, row.warm_ms, row.call_ms, row.call_p95_ms, row.picture_ms, row.memory_mib)
        print(f"{row.name:16}" + "".join(f"{'-' if each is None else format(each, '.3g'):>9}" for each in figures))
    packages = ("jupyter_client", "ipykernel", "llm-sandbox", "docker")
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    result = {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "load_average": load,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "date": datetime.now(UTC).date().isoformat(),
        "rows": [asdict(row) for row in found if isinstance(row, Row)],
        "left_out": [row for row in found if isinstance(row, str)],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
