"""What ``sandbox.py`` measures ours beside: a Jupyter kernel, and llm-sandbox on the same Docker daemon."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import queue
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

STATE, CALL = "x = 0", "x += 1"
SHELL = tuple(f"/bin/{name}" for name in "sh mkdir chown chmod rm tar ls cat touch tail sleep mv cp".split())
"""Programs that llm-sandbox calls; our image has none of them."""


class Subject(Protocol):
    """Something that runs code and is asked the same as the others."""

    call: str
    """The execution that is measured."""

    def run(self, code: str) -> str:
        """What was printed."""

    def picture(self, code: str) -> int:
        """Bytes of the PNG that the last expression became; 0 where pictures do not come back."""

    def pids(self) -> list[int]:
        """Host processes that exist for it."""

    def close(self) -> None:
        """End it."""


class Jupyter:
    """A Jupyter kernel: no isolation, messages over local sockets."""

    call = CALL

    def __init__(self) -> None:
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager()
        self._manager.start_kernel(stderr=subprocess.DEVNULL)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def run(self, code: str) -> str:
        return "".join(message["content"]["text"] for message in self._told(code) if message["msg_type"] == "stream")

    def picture(self, code: str) -> int:
        shown = [message["content"]["data"] for message in self._told(code) if message["msg_type"] == "execute_result"]
        return len(base64.b64decode(shown[0]["image/png"]))

    def pids(self) -> list[int]:
        return descendants(os.getpid())

    def close(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def _told(self, code: str) -> Iterator[dict[str, Any]]:
        asked = self._client.execute(code)
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=30)
            except queue.Empty:
                raise AssertionError("the kernel fell silent") from None
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                self._client.get_shell_msg(timeout=30)
                return
            yield message


class LlmSandbox:
    """llm-sandbox on the same Docker daemon; each call is a new process, so state does not live on."""

    call = STATE

    def __init__(self, image: str) -> None:
        from llm_sandbox import SandboxSession

        self._session = SandboxSession(
            lang="python",
            image=image,
            keep_template=True,
            skip_environment_setup=True,
            runtime_configs={"network_mode": "none"},
        )
        self._session.open()

    def run(self, code: str) -> str:
        result = self._session.run(code)
        assert result.exit_code == 0, result
        return str(result.stdout)

    def picture(self, code: str) -> int:
        return 0

    def pids(self) -> list[int]:
        return []

    def close(self) -> None:
        self._session.close()


def image_with_shell() -> str:
    """Our image with a shell, programs of this machine and a user root, which llm-sandbox needs."""
    import docker

    from keyeloop.sandbox.docker.daemon import IMAGE

    found = {name: Path(name).resolve() for name in SHELL if Path(name).exists()}
    for program in tuple(found.values()):
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        found |= {name: Path(name).resolve() for name in re.findall(r"(/\S+\.so\S*)", told)}
    files = {name: path.read_bytes() for name, path in found.items()}
    recipe = f'FROM {IMAGE}\nADD shell.tar /\nUSER root\nCMD ["/bin/sh"]\n'
    shell = packed(files | {"/etc/passwd": b"root:x:0:0::/tmp:/bin/sh\n"})
    context = io.BytesIO(packed({"shell.tar": shell, "Dockerfile": recipe.encode()}))
    docker.from_env().images.build(fileobj=context, custom_context=True, tag="keyeloop-benchmark:shell", rm=True)
    return "keyeloop-benchmark:shell"


def packed(files: dict[str, bytes]) -> bytes:
    """A tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def descendants(pid: int) -> list[int]:
    """Processes below one, itself left out."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    below = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    return [*below, *(each for one in below for each in descendants(one))]


def owned(uid: int) -> list[int]:
    """Processes of a uid, those that are closed to their owner included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"\nUid:\t{uid}\t" in (folder / "status").read_text():
                found.append(int(folder.name))
    return found


def resident_kib(pid: int) -> int:
    """Memory of a process, shared pages divided among those that share them (``Pss``)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
