"""What works on this machine, found by trying it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from keyeloop.runtime.errors import SandboxError
from keyeloop.sandbox.session import WorkerSandbox


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    name: str
    state: Literal["ok", "missing", "off"]
    """``missing`` stops the embedded model from answering about a video; ``off`` takes away an option."""
    found: str
    cure: str = ""


def run_checks() -> Iterator[Check]:
    """Try everything, the necessary things first; each check is made when it is asked for."""
    made: list[Callable[[], Check]] = [
        python,
        lambda: module("av", "opening videos", "pip install av"),
        lambda: module("cv2", "resizing and encoding pictures", "pip install opencv-python-headless"),
        lambda: module("torch", "running keye-tiny here", "pip install 'keyeloop[local]'"),
        lambda: module("llguidance", "holding calls to their schema", "pip install 'keyeloop[local]'"),
        lambda: module("mcp", "tools of MCP servers, keyeloop mcp", "pip install 'keyeloop[mcp]'", needed=False),
        lambda: module("starlette", "keyeloop view", "pip install 'keyeloop[view]'", needed=False),
        lambda: module("uvicorn", "keyeloop view", "pip install 'keyeloop[view]'", needed=False),
        lambda: module("opentelemetry.sdk", "keyeloop export otel", "pip install 'keyeloop[otel]'", needed=False),
        lambda: module("rapidocr", "the tool read_text", "pip install 'keyeloop[ocr]'", needed=False),
        lambda: module(
            "faster_whisper", "the tool listen, with a model of yours", "pip install 'keyeloop[listen]'", needed=False
        ),
        weights,
        *sandboxes(),
        gpu,
        serving,
    ]
    for check in made:
        yield check()


def python() -> Check:
    """The interpreter."""
    return Check("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def module(name: str, purpose: str, cure: str, *, needed: bool = True) -> Check:
    """A package; what is needed is imported, which finds missing system libraries too."""
    absent: Literal["missing", "off"] = "missing" if needed else "off"
    try:
        if importlib.util.find_spec(name) is None:
            return Check(name, absent, f"not installed: {purpose}", cure)
        found = importlib.import_module(name) if needed else None
    except Exception as error:
        return Check(name, absent, f"cannot be imported: {_line(error)}", cure)
    return Check(name, "ok", f"{getattr(found, '__version__', '')} {purpose}".strip())


def weights() -> Check:
    """The embedded model's files."""
    from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
    from keyeloop.runtime.errors import InputError

    try:
        folder = model_folder(EMBEDDED_MODEL)
    except InputError as error:
        return Check(
            "keye-tiny",
            "missing",
            str(error).partition("; ")[0],
            "install keyeloop again, with its data files",
        )
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return Check("keye-tiny", "ok", f"{size / 1e6:.1f} MB of weights")


def sandboxes() -> list[Callable[[], Check]]:
    """A check for each engine that can isolate model-written code, and what to know of those that do not."""
    from keyeloop.sandbox.opening import BY_NAME_ONLY, ENGINES

    made: list[Callable[[], Check]] = [partial(sandbox, engine) for engine in ENGINES]
    cure = "never chosen by itself; type its name in full for code that you trust"
    return made + [partial(Check, f"sandbox: {each.engine}", "off", "isolates nothing", cure) for each in BY_NAME_ONLY]


def sandbox(engine: type[WorkerSandbox]) -> Check:
    """Whether one engine works, by starting a sandbox and attacking it, and what then stands around code."""
    name = f"sandbox: {engine.engine}"
    found = engine.available()
    if not found.ok:
        return Check(name, "off", found.reason, found.remedy)
    try:
        with engine() as opened:
            about = opened.isolation
    except SandboxError as error:
        return Check(name, "off", f"started once, then no more: {_line(error)}", "try again")
    kernel = "a kernel of its own" if about.boundary in ("gvisor", "vm") else "the host's kernel, filtered"
    bounds = f"memory by {about.memory}, processes by {about.pids}"
    return Check(name, "ok", f"five attacks refused; {about.boundary}: {kernel}; uid {about.uid}; {bounds}")


def gpu() -> Check:
    """A CUDA device, as the driver tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        cure = "a larger model: name a server, --model http://host:port/v1; keyeloop serve needs 80 GB of GPU"
        return Check("gpu", "off", "no NVIDIA driver; keye-tiny runs on the CPU", cure)
    asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split("\n")
    except (OSError, subprocess.SubprocessError) as error:
        return Check("gpu", "off", f"nvidia-smi fails: {_line(error)}", "mend the NVIDIA driver")
    return Check("gpu", "ok", "; ".join(line for line in told if line))


def serving() -> Check:
    """Whether ``keyeloop serve`` finds an SGLang that fits this torch; it is not imported."""
    from keyeloop.model_backend.sglang.serve.versions import check_versions, read_installed
    from keyeloop.runtime.errors import ConfigError

    device = "cpu" if shutil.which("nvidia-smi") is None else "cuda"
    try:
        installed = read_installed()
        remarks = check_versions(installed, device)
    except ConfigError as error:
        found, _, cure = str(error).partition(": ")
        if device == "cpu":
            cure = "where there is a GPU: pip install 'keyeloop[serve]', then keyeloop serve; here, for tests: " + cure
        return Check("sglang", "off", f"keyeloop serve has {found}", cure)
    return Check(
        "sglang", "ok", "; ".join([f"{installed.sglang} for keyeloop serve, torch {installed.torch}", *remarks])
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
