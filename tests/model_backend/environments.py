"""Small environments for tests of the launcher: installed packages' metadata, GPUs, and an SGLang that only listens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LISTENER = """
import argparse, json, os, signal, sys, time, http.server
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("--host", "--port", "--config", "--model-path", "--served-model-name"):
    parser.add_argument(name)
known, _ = parser.parse_known_args()
key = json.loads(Path(known.config).read_text().partition("api-key: ")[2])
told = json.loads(Path(__file__).with_name("told.json").read_text())
print("arguments", sys.argv, "key", key, flush=True)
Path(__file__).with_name("seen.json").write_text(json.dumps({"arguments": sys.argv, "environment": dict(os.environ)}))
if told.get("dies"):
    sys.exit("RuntimeError: CUDA out of memory, api_key=" + key)
began = time.monotonic()


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if time.monotonic() - began < told.get("starts_in_s", 0):
            return self.send_error(503)
        if self.path == "/health":
            self.send_response(200)
            return self.end_headers()
        if self.headers["Authorization"] != "Bearer " + key:
            return self.send_error(401)
        body = json.dumps({"internal_states": told["states"]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
        if told.get("ends_when_asked"):
            os.kill(os.getpid(), signal.SIGKILL)

    def log_message(self, *_):
        print("asked", self.path, flush=True)


http.server.ThreadingHTTPServer((known.host, int(known.port)), Answers).serve_forever()
"""
SPARSE: Mapping[str, Any] = {"sparse": True, "indexer": "exact", "kernels": "torch"}


def write_package(site: Path, name: str, version: str, points: Mapping[str, str]) -> None:
    """An installed distribution's metadata: ``points`` are groups of entry points."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text("\n".join(f"[{group}]\n{point}" for group, point in points.items()))


def write_sglang(site: Path, *, version: str = "0.5.21", torch: str = "2.13.0+cpu", **told: Any) -> dict[str, str]:
    """A package ``sglang`` whose server listens and says what it is ``told``; the environment that finds it first."""
    write_package(site, "sglang", version, {"sglang.srt.plugins": "keyeloop = nowhere:register"})
    write_package(site, "torch", torch, {})
    package = site / "sglang"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "launch_server.py").write_text(LISTENER)
    (package / "told.json").write_text(json.dumps({"states": [{"keyeloop": SPARSE}], **told}))
    return {**os.environ, "PYTHONPATH": str(site), "XDG_STATE_HOME": str(site / "state")}


def write_nvidia_smi(folder: Path, rows: Sequence[str]) -> str:
    """A driver's tool that lists ``rows``; the PATH that finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\n" + "".join(f"echo '{row}'\n" for row in rows))
    tool.chmod(0o755)
    return f"{folder}:{os.environ.get('PATH', '')}"
