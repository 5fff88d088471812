"""The loop: take a request, carry it out, answer."""

from __future__ import annotations

import ast
import contextlib
import linecache
import os
import resource
import signal
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from .capture import Capture
from .files import Files
from .pipe import Pipe
from .screen import Screen


class Worker:
    """Runs code in one namespace that lives as long as the process."""

    def __init__(self) -> None:
        self._pipe = Pipe()
        config, _ = self._pipe.receive()
        self._limits: dict[str, Any] = config["limits"]
        self._capture = Capture(config["capture"])
        kept = {0, 1, 2, *self._pipe.files, *self._capture.files}
        for file in {int(link.name) for link in Path("/proc/self/fd").iterdir()} - kept:
            with contextlib.suppress(OSError):
                os.close(file)
        self._screen = Screen(self._limits["stdout_bytes"], self._limits["frame_bytes"] // 2)
        self._files = Files(config["outputs"], self._limits)
        self._pid = os.getpid()
        self._own_pids = config.get("own_pids") is True
        self._running = False
        self._count = 0
        self._bound(config["rlimits"])
        os.umask(0o022)
        os.chdir(config["work"])
        for name, target in config.get("links", {}).items():  # mounts, where code looks first
            with contextlib.suppress(OSError):
                Path(name).symlink_to(target)
        self._space = self._namespace(config)
        self._pipe.send({"id": 0, "ready": True, "python": sys.version.split()[0]})

    def serve(self) -> None:
        """Answer requests until the host hangs up."""
        while True:
            request, blob = self._pipe.receive()
            try:
                reply, blobs = getattr(self, "_do_" + request["op"])(request, blob)
            except (OSError, MemoryError) as error:
                reply, blobs = {"problem": getattr(error, "strerror", None) or repr(error)}, b""
            if os.getpid() != self._pid:
                os._exit(0)
            self._pipe.send({"id": request["id"], **reply}, blobs)

    def _bound(self, rlimits: dict[str, int]) -> None:
        for name, value in rlimits.items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (bound, bound))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")

    def _namespace(self, config: dict[str, Any]) -> dict[str, Any]:
        import site

        site.setquit()
        os.environ.pop("PYTHONSAFEPATH", None)  # it was for this process; what code starts finds its packages too
        os.environ.setdefault("PYTHONPATH", os.pathsep.join(config["site"]))
        for folder in config["site"]:
            site.addsitedir(folder)
        sys.path.insert(0, config["work"])
        sys.argv = [""]
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        for name in config["preimport"]:
            with contextlib.suppress(Exception):
                __import__(name)
        module.__dict__["display"] = self._screen.show
        return module.__dict__

    def _do_exec(self, request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self._capture.restore()
        self._screen.clear()
        self._count += 1
        signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            try:
                status, error = self._run(request["code"], f"<cell {self._count}>")
            finally:
                self._running = False
        except KeyboardInterrupt:
            status, error = "interrupted", None
        if status == "interrupted":
            self._end_others()
        found, refused = self._files.changed()
        (stdout, stderr), cut = self._capture.read(self._limits["stdout_bytes"])
        reply = {
            "status": status,
            "stdout": stdout,
            "stderr": stderr,
            "truncated": cut,
            "error": error,
            "displays": self._screen.bundles,
            "files": found,
            "refused": refused,
        }
        return reply, bytes(self._screen.blobs)

    def _do_get(self, request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        data, size = self._files.read(request["path"], request["offset"], request["size"])
        return {"size": size}, data

    def _do_put(self, request: dict[str, Any], blob: bytes) -> tuple[dict[str, Any], bytes]:
        self._files.write(request["path"], blob, request["append"], request.get("seal") is True)
        return {}, b""

    def _do_link(self, request: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        self._files.link(request["path"], request["target"])
        return {}, b""

    def _end_others(self) -> None:
        """Kill what interrupted code left running: a fork bomb would use up the processes of later executions."""
        if not self._own_pids:
            return
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)  # all of the process namespace but its first and this one
            while True:
                os.waitpid(-1, 0)

    def _on_interrupt(self, *_: Any) -> None:
        if self._running:
            raise KeyboardInterrupt

    def _run(self, code: str, name: str) -> tuple[str, dict[str, Any] | None]:
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        try:
            tree = ast.parse(code, name)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            self._running = True
            exec(compile(tree, name, "exec", dont_inherit=True), self._space)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), self._space)
                if value is not None:
                    self._space["_"] = value
                    self._screen.show(value)
            self._screen.show_figures()
        except KeyboardInterrupt:
            return "interrupted", None
        except SystemExit as stop:
            if stop.code in (None, 0):
                return "ok", None
            return "error", self._describe(stop, name)
        except BaseException as error:
            return "error", self._describe(error, name)
        return "ok", None

    def _describe(self, error: BaseException, name: str) -> dict[str, Any]:
        self._running = False
        trace, line = error.__traceback__, None
        while trace is not None and trace.tb_frame.f_code.co_filename != name:
            trace = trace.tb_next
        deepest = trace
        while deepest is not None:
            if deepest.tb_frame.f_code.co_filename == name:
                line = deepest.tb_lineno
            deepest = deepest.tb_next
        if isinstance(error, SyntaxError) and error.filename == name:
            line = error.lineno
        try:
            message = str(getattr(error, "msg", error)) if isinstance(error, SyntaxError) else str(error)
            text = "".join(traceback.format_exception(type(error), error, trace))
        except Exception:
            message = text = "the exception could not be described"
        room = self._limits["stdout_bytes"]
        return {"name": type(error).__name__, "message": message[:room], "traceback": text[-room:], "line": line}
