"""The start, the wait and the end of a planned server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType

from keyeloop.model_backend.sglang.serve.checkpoint import fetched
from keyeloop.model_backend.sglang.serve.command import config_file_text
from keyeloop.model_backend.sglang.serve.key import given_key, kept_key, state_folder, write_private
from keyeloop.model_backend.sglang.serve.plan import NO_FOLDER, Plan
from keyeloop.model_backend.sglang.serve.port import check_port
from keyeloop.model_backend.sglang.serve.process import ServerProcess
from keyeloop.model_backend.sglang.serve.waiting import SparseState, check_sparse, last_words, wait_ready
from keyeloop.runtime.errors import BackendError, OperatorError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """One of :data:`STOPPING` arrived; not an Exception, so that nothing on its way takes it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    plan: Plan
    server: ServerProcess
    key: str
    key_file: str | None
    """Where the key is kept; None where it was given."""
    ready_after_s: float
    sparse: SparseState

    def wait(self) -> None:
        """Until the server ends, which raises BackendError, or a signal does, as Stopped."""
        while (code := self.server.ended(wait_s=1.0)) is None:
            pass
        raise BackendError(last_words(self.server, self.key, f"the server ended with code {code}"))


@contextmanager
def running(plan: Plan, environment: Mapping[str, str], progress: Callable[[float, str], None]) -> Iterator[Running]:
    """Download what is missing, start the plan's server and wait for it; on leaving, all of it is ended.

    Raises the plan's first problem instead, BackendError for a server that does not come up or does not attend
    sparsely, Stopped for a signal at any time. Call it in the main thread.
    """
    if plan.problems:
        raise plan.problems[0]
    assert plan.command is not None and plan.checkpoint is not None
    with _heeding_signals():
        checkpoint = fetched(plan.checkpoint)
        arguments = [str(checkpoint.folder) if part == NO_FOLDER else part for part in plan.command.arguments]
        plan = replace(plan, checkpoint=checkpoint, command=replace(plan.command, arguments=tuple(arguments)))
        assert plan.command is not None
        key, key_file = given_key(environment, plan.settings.key_file), None
        if key is None:
            key, file = kept_key(state_folder(environment))
            key_file = str(file)
        check_port(plan.settings.host, plan.settings.port)  # a download may have taken an hour
        _make_store(plan)
        write_private(plan.log, "")
        write_private(plan.config_file, config_file_text(key))
        try:
            with ServerProcess(arguments, plan.command.environment(environment), plan.log) as server:
                ready_after_s = wait_ready(server, plan.url, key, progress)
                sparse = check_sparse(plan.url, key, plan.settings.index)
                yield Running(plan, server, key, key_file, ready_after_s, sparse)
        finally:
            with suppress(OSError):
                plan.config_file.unlink()


def _make_store(plan: Plan) -> None:
    store = plan.settings.media_store
    if store is None:
        return
    try:
        store.expanduser().mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperatorError(f"--media-store {store} cannot be made: {error.strerror or error}") from None


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """The first signal raises Stopped where the program stands, and lets a second one end the wait for the server.

    What this process was started to ignore, as ``nohup`` and background jobs of scripts do, stays ignored.
    """
    heeded = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:
        for again in heeded:
            signal.signal(again, signal.default_int_handler)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
