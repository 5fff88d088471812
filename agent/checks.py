"""What works on this machine, found by trying it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DOCKER_SOCKET = Path("/var/run/docker.sock")


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
        weights,
        sandbox,
        gpu,
        serving,
        docker,
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


def sandbox() -> Check:
    """Whether model-written code can be isolated, by starting a sandbox and attacking it."""
    from keyeloop.sandbox.bubblewrap import Bubblewrap

    found = Bubblewrap.available()
    if found.ok:
        return Check("sandbox", "ok", f"{found.engine}: started, attacked, it held")
    return Check("sandbox", "off", f"python is not offered: {found.reason}", found.remedy)


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


def docker() -> Check:
    """A Docker daemon that answers."""
    cure = "optional: install Docker and let this user reach its daemon"
    if "DOCKER_HOST" not in os.environ and not DOCKER_SOCKET.exists():
        return Check("docker", "off", f"no daemon: {DOCKER_SOCKET} is not there", cure)
    try:
        client: Any = importlib.import_module("docker").from_env(timeout=5)
        version = client.version()["Version"]
        client.close()
    except Exception as error:
        return Check("docker", "off", f"no daemon answers: {_line(error)}", cure)
    return Check("docker", "ok", f"daemon {version}")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
