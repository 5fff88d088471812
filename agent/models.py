"""From what a person names to who thinks, by one grammar on the command line, in settings and in Python.

``keye-tiny | FOLDER | http://host:port/v1#name | sglang://host:port#name | replay:RUN``
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyeloop.model_backend.base import ModelBackend
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.openai_chat.address import is_address, parse_address
from keyeloop.model_backend.replay import ReplayBackend
from keyeloop.model_backend.sglang.native.address import is_native, parse_native
from keyeloop.runtime.config import Config
from keyeloop.runtime.errors import ConfigError, InputError, JournalError
from keyeloop.runtime.journal import JOURNAL
from keyeloop.runtime.trajectory import Trajectory

REPLAY = "replay:"
"""``replay:RUN`` gives the replies of a recorded run again, without its model."""
ModelLike = str | os.PathLike[str] | ModelBackend


def check_model(model: ModelLike) -> None:
    """Raise InputError, before anything heavy is imported or asked, for what can be no model.

    That is an unknown name, a folder without weights, a bad address, no run to replay.
    """
    if not isinstance(model, str | os.PathLike):
        if not hasattr(model, "generate"):
            raise InputError(f"model {model!r} is no name, no folder and no backend (it has no generate)")
        return
    name = os.fspath(model)
    if is_native(name):
        parse_native(name)
    elif is_address(name):
        parse_address(name)
    elif not name.startswith(REPLAY):
        model_folder(name)
    elif not (Path(name.removeprefix(REPLAY)) / JOURNAL).is_file():
        raise InputError(f"no run in {name.removeprefix(REPLAY)}: name the folder of a run, as {REPLAY}RUN")


def load_model(model: ModelLike) -> ModelBackend:
    """The backend behind ``model``; a name or a folder is loaded here, which imports torch and takes a while.

    An address becomes a client that asks its server only when its capabilities are needed.

    Raises InputError as :func:`check_model` does, ConfigError where torch is not installed, CheckpointError for
    weights that do not fit.
    """
    check_model(model)
    if not isinstance(model, str | os.PathLike):
        return model
    name = os.fspath(model)
    if name.startswith(REPLAY):
        try:
            return ReplayBackend(Path(name.removeprefix(REPLAY)))
        except JournalError as error:
            raise InputError(f"{error}; name another run to replay") from None
    if is_address(name):
        return served_model(name, Config())
    with needs_local(f"running {name} on this machine"):
        from keyeloop.model_backend.local.engine import LocalBackend
    return LocalBackend.load(name)


def model_name(model: ModelLike) -> str | None:
    """The name under which ``model`` can be loaded again, from any folder; None where its capabilities tell it."""
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else ""
    if not name or is_address(name):
        return None
    if name.startswith(REPLAY):
        return REPLAY + str(Path(name.removeprefix(REPLAY)).absolute())
    return name if name == EMBEDDED_MODEL else str(Path(name).absolute())


def recorded_model(run: Trajectory) -> str:
    """The name of the model that was asked last in a run. InputError where the record has none that can be loaded."""
    asked = run.exchanges[-1].asked
    name = asked.config.get("model") or asked.model
    if name == asked.model and name != EMBEDDED_MODEL and not is_address(name):
        raise InputError(f"{asked.model}, the model of {run.folder}, cannot be loaded by name: name one with --model")
    return str(name)


def configured_model(config: Config) -> ModelLike:
    """The model that settings name; a served one with what they say of its server."""
    return served_model(config.model, config) if is_address(config.model) else config.model


def served_model(name: str, config: Config, *, try_out: bool = True) -> ModelBackend:
    """The client for an address, with what settings say of its server; nothing is sent yet.

    Without ``try_out`` it will ask the server what that says of itself, and try nothing out.
    """
    from keyeloop.model_backend.served.sending import Timeouts

    timeouts = Timeouts(config.connect_seconds, config.read_seconds, config.reply_seconds)
    if is_native(name):
        with needs_local(f"asking {name} in tokens"):
            from keyeloop.model_backend.sglang.native.backend import SGLangNative
        return SGLangNative(name, context_tokens=config.context_tokens, timeouts=timeouts, tries=config.tries)
    from keyeloop.model_backend.openai_chat.backend import OpenAIChat

    return OpenAIChat(
        name,
        context_tokens=config.context_tokens,
        pictures=config.pictures,
        call_form=config.call_form,
        timeouts=timeouts,
        tries=config.tries,
        try_out=try_out,
    )


@contextmanager
def needs_local(what: str) -> Iterator[None]:
    """Imports in this block may need what ``keyeloop[local]`` installs; ConfigError says so where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("keyeloop"):
            raise
        raise ConfigError(f"{what} needs {error.name}: pip install 'keyeloop[local]'") from None
